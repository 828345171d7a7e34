"""Models compared, variable by variable."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def assert_same_models(one, other, atol=1e-6):
    for kind in (nnx.Param, nnx.Not(nnx.Param)):
        got, wanted = (nnx.to_pure_dict(nnx.state(model, kind)) for model in (one, other))
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            np.testing.assert_allclose(a, b, atol=atol, err_msg=jax.tree_util.keystr(path))
