"""The commands of ``multimodal-pad``, one a module: ``add_parser`` adds its options and the function that runs it."""
