"""Many runs: what happens around a sweep, its names, its study."""
