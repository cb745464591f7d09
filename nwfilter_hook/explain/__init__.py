"""Why a ruleset does what it does with a frame, in words; pure."""
