"""Sources of the compiled kernels, and the build that turns them into what the `kernels` library loads."""
