"""Where pytest looks for examples: in PyTorch's side only where PyTorch, which is optional, is installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["peers/torch_side.py", "lib/twin.py", "lib/twin_positions.py"]
