"""Before any test: the package is imported ahead of TensorFlow, as its programs do it.

TensorFlow reads once whether to use oneDNN. A test that holds this process against one of ours would otherwise, on
processors without AVX-512 VNNI, hold two ways to compute float32 views against one another.

And no test fails by wall time, which hypothesis would look at where it is not told otherwise.
"""

import hypothesis

import lowlevel_simclr as lowlevel_simclr

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
