# bash, loaded at the first Tab: what click makes for it, which asks the command itself.
eval "$(_NWFILTER_HOOK_COMPLETE=bash_source nwfilter-hook 2>/dev/null)"
