"""How fast is the batcher?"""
