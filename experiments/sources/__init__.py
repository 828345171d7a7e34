"""How fast are conversion and reading, and how much of a corpus' own padding is real?"""
