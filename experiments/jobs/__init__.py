"""The jobs of a new user, each as two whole scripts: before, and with the library as it is."""
