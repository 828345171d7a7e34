"""The commands of ``multimodal-pad``, one a module: ``add_parser`` says what it takes, and what runs it."""
