"""`gpupool upgrade`: is this the moment to go over to the installed version, and what comes after it."""
