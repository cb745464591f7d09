# fish, loaded at the first Tab: what click makes for it, which asks the command itself.
_NWFILTER_HOOK_COMPLETE=fish_source nwfilter-hook 2>/dev/null | source
