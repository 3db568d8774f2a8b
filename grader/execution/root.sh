# shellcheck shell=sh
# Comes before the texts of jail.sh and labvm/confine.sh.

# In a mount namespace: the folder `root` gets this machine's /usr and /dev/null, and nothing else of it.
fill_root() {
    mkdir root/usr root/dev root/etc root/etc/alternatives
    mount --rbind /usr root/usr
    links=
    for name in bin lib lib32 lib64 libx32; do
        if [ -L "/$name" ]; then
            links="$links /$name"
        elif [ -d "/$name" ]; then
            mkdir "root/$name"
            mount --rbind "/$name" "root/$name"
        fi
    done
    # shellcheck disable=SC2086 # these names have no spaces
    [ -z "$links" ] || cp -P $links root/
    if [ -d /etc/alternatives ]; then
        mount --bind /etc/alternatives root/etc/alternatives
    fi
    : > root/dev/null
    mount --bind /dev/null root/dev/null
}
