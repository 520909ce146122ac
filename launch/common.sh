# shellcheck shell=bash
# What the scripts for pods share: flags, errors, quoting. It is sourced.
#
# A script has a variable for every flag, with the default as its value, and
# hands the names to `parse`. All have --name, --config, --workdir, --dry_run.
# shellcheck disable=SC2154  # these variables are the script's

# Says what is wrong with the flags, or with this machine.
die() {
  printf 'launch/%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# The comment at the head of the script.
usage() { sed -n -e 1d -e '/^#/!q' -e 's/^# \{0,1\}//p' "launch/${0##*/}"; }

# One line that a shell reads back as these words.
quote() {
  local word line='' safe='^[A-Za-z0-9_@%+=:,./-]+$' escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ $safe ]] || word="'${word//\'/$escaped}'"
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}

# Runs a command; in a dry run prints it.
run() {
  if $dry_run; then
    quote "$@"
  else
    printf '+ %s\n' "$(quote "$@")" >&2
    "$@"
  fi
}

# Sets the variables of flags, and TRAIN to the words of the training command.
#
#   parse 'further flags with a value' 'further switches' "$@"
parse() {
  local values=" name config workdir $1 " switches=" dry_run $2 " key
  shift 2
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    key=${1%%=*} key=${key#--}
    case $1 in
      -h | --help) usage && exit ;;
      --*) ;;
      *) die "got '$1', wanted --name=value; flags of arvision train come" \
        "after a lone --" ;;
    esac
    if [[ $values == *" $key "* ]]; then
      [[ $1 == *=* ]] || die "got '--$key', wanted --$key=..."
      printf -v "$key" %s "${1#*=}"
    elif [[ $switches == *" $key "* ]]; then
      [[ $1 != *=* ]] || die "got '$1', wanted --$key alone"
      printf -v "$key" true
    else
      # shellcheck disable=SC2086  # they are lists
      die "no flag '--$key'; there are:$(printf ' --%s=...' $values)" \
        "$(printf ' --%s' $switches)"
    fi
    shift
  done
  [ $# -eq 0 ] || shift
  [[ $name =~ ^[a-z][a-z0-9-]*$ || -z $name ]] ||
    die "--name='$name': wanted a-z, 0-9 and -, and a letter in front"
  case $workdir in
    *://*) die "--workdir='$workdir': arvision writes to folders, not to" \
      "URLs; mount the bucket or a file server, and name the folder" ;;
  esac
  # shellcheck disable=SC2034  # the script runs it
  TRAIN=(arvision train "--config=$config" "--workdir=$workdir" "$@")
}

# Refuses flags that were left out.
need() {
  local key missing=''
  for key in "$@"; do
    [ -n "${!key}" ] || missing+=" --$key=..."
  done
  [ -z "$missing" ] || die "wanted$missing too; --help says what they mean"
}

# Refuses what is no whole number from $2 on: `number slices 1`.
number() {
  [[ ${!1} =~ ^[0-9]+$ ]] && [ "${!1}" -ge "$2" ] ||
    die "--$1=${!1}: wanted a whole number from $2 on"
}

# Refuses a folder that does not mean the same on every machine.
absolute() {
  [[ ${!1} == /* ]] || die "--$1='${!1}': wanted an absolute path"
}

# Refuses to go on without a program, unless nothing is run.
tool() {
  $dry_run || command -v "$1" >/dev/null ||
    die "'$1' is not on PATH ($2); --dry_run shows what would be run"
}
