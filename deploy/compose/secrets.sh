#!/bin/sh
# Makes the passwords that deploy/compose.yaml hands to its containers as files: secrets.sh [FOLDER].
# What is there already is left alone. To change the broker's password, remove broker-url and valkey-users.acl.
set -eu
umask 077

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
cd "$folder"

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

keep() { # NAME, with its text on standard input
    if [ -e "$1" ]; then
        cat >/dev/null
        echo "$1: left as it is"
    else
        cat >"$1"
        # the containers' users are not us; other people of this machine do not get past the folder
        chmod 0444 "$1"
        echo "$1: written"
    fi
}

for pair in "broker-url valkey-users.acl" "valkey-users.acl broker-url"; do
    if [ -e "${pair% *}" ] && [ ! -e "${pair#* }" ]; then
        echo "${pair% *} is there and ${pair#* } is not, and they hold the same password: remove it and start again" >&2
        exit 1
    fi
done

password=$(random)
keep broker-url <<EOF
redis://callvault:$password@valkey:6379/0
EOF
# all keys and channels begin with callvault:; nothing that administers the server, but its figures for \`health\`
keep valkey-users.acl <<EOF
user default off
user callvault on >$password ~callvault:* &* +@all -@admin -@dangerous +info
EOF
random | keep s3-access-key-id
random | keep s3-secret-access-key
echo change-me | keep hq-password
echo "The phone system's password belongs into $(pwd)/hq-password."
