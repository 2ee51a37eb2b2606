# What zsh offers for a line: `zsh -f zsh_asks.zsh COMPLETION LINE`. A second zsh, on a terminal of
# its own (zpty), completes the line; what it would add is printed by a compadd in between.
zmodload zsh/zpty || exit 77
zpty asked zsh -f -i
zpty -w asked "PS1=; autoload -Uz compinit; compinit -D -u; source ${(q)1}
compadd() {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd \"\$@\"; return; fi
  local -a __hits
  builtin compadd -A __hits \"\$@\"
  print -rl -- \"\${(@)__hits/#/HIT:}\"
  return 1
}
null-line() { print DONE; exit; }
ask() { BUFFER=${(q)2}; CURSOR=\$#BUFFER; zle expand-or-complete; print DONE:; exit }
zle -N ask; bindkey '^G' ask; print READY:"
while zpty -r asked line; do [[ $line == READY:* ]] && break; done
zpty -w -n asked $'\007'
while zpty -r asked line; do
  line=${line%%$'\r\n'}
  [[ $line == *HIT:* ]] && print -r -- ${line##*HIT:}
  [[ $line == *DONE:* ]] && break
done
zpty -d asked
