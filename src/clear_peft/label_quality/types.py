"""Names of array types: what label quality computes with."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.integer]
Labels = npt.NDArray[np.integer]
