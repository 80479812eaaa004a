# What every script here begins with: `SCRIPT --help` prints the comment at its head and does nothing else;
# what a script does not take ends with 64.
# Usage: source launch/usage.sh     at the head of a script, with its arguments still in place
# Example: source "$(dirname "$0")/usage.sh"; no_arguments "$@"

# The comment at the script's head.
print_usage() { sed -n -e '/^#!/d' -e '/^#/!q' -e 's/^# \{0,1\}//p' "$0"; }

# Ends with 64 and a message.
wrong_usage() {
  printf '%s: %s; --help shows what it takes\n' "$(basename "$0")" "$*" >&2
  exit 64
}

no_arguments() { [ $# = 0 ] || wrong_usage "takes no arguments, not '$1'"; }

# Ends with 64 where an option is not one of those that the comment at the script's head names.
only_known_options() {
  local argument
  for argument in "$@"; do
    case $argument in
      -*) grep -qw -e "${argument%%=*}" <<<"$(print_usage)" || wrong_usage "there is no option '$argument'" ;;
    esac
  done
}

case "${1:-}" in -h | --help) print_usage; exit 0 ;; esac
[ "${BASH_SOURCE[0]}" != "$0" ] || wrong_usage "is for other scripts to read"
