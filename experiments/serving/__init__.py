"""What do planned shapes and gathering do for single requests?"""
