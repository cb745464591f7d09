# bash, loaded at the first Tab: what click makes for it, which asks the command itself.
eval "$(_NWFILTER_HOOK_COMPLETE=bash_source nwfilter-hook 2>/dev/null)"

# no space behind NAME=, where a value follows
_nwfilter_hook_parameters() {
    _nwfilter_hook_completion "$@"
    [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
}
complete -o nosort -F _nwfilter_hook_parameters nwfilter-hook
