"""The jobs of a new user, each as a whole script: what it took before, and what it takes now."""
