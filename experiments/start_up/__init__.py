"""How long until the first step, and what decides it?"""
