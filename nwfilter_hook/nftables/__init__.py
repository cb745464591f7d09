"""The back end: a ruleset as an nft transaction, and what nft lists."""
