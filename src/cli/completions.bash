# What thalweg is asked for at each TAB. Readline cuts words at colons, as there are in the addresses
# of servers; here they are put together again, and of what comes back only the part behind the last
# such cut is given to it.
_thalweg() {
    local line="${COMP_LINE:0:COMP_POINT}" word bare i
    local -a words=()
    for ((i = 0; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        bare="${line#"${line%%[![:space:]]*}"}"
        if ((${#words[@]} > 0)) && [[ "$bare" == "$line" ]]; then
            words[${#words[@]}-1]+="$word"
        else
            words+=("$word")
        fi
        line="${bare#"$word"}"
    done
    bare="${line#"${line%%[![:space:]]*}"}"
    if ((${#words[@]} > 0)) && [[ "$bare" == "$line" ]]; then
        words[${#words[@]}-1]+="$bare"
    else
        words+=("$bare")
    fi
    local current="${words[${#words[@]}-1]}"
    local IFS=$'\013' space=true
    compopt +o nospace 2> /dev/null && space=false
    COMPREPLY=($(
        _CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) \
        _CLAP_COMPLETE_COMP_TYPE="$COMP_TYPE" _CLAP_COMPLETE_SPACE="$space" \
        THALWEG_COMPLETE=bash thalweg -- "${words[@]}" 2> /dev/null
    )) || COMPREPLY=()
    local cut="${current%"${current##*[:=@]}"}"
    if [[ -n "$cut" && "$COMP_WORDBREAKS" == *"${cut: -1}"* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
    if [[ "$space" == false && "${COMPREPLY-}" =~ [=/:]$ ]]; then
        compopt -o nospace
    fi
}
if ((BASH_VERSINFO[0] > 4 || BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4)); then
    complete -o nospace -o bashdefault -o nosort -F _thalweg thalweg
else
    complete -o nospace -o bashdefault -F _thalweg thalweg
fi
