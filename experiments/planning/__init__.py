"""How good are planned shapes, and how well are the times predicted that choose their number?"""
