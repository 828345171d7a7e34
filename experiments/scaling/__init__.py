"""How do time, memory and compilations grow?"""
