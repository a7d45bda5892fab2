#!/bin/sh
# The system's libraries that the bpy wheels link against even without a window; a bare machine has none of them.
# Installs what is missing where it may (as root, or by a sudo that asks nothing), else says in one line what to install.
set -eu

[ "$(uname)" = Linux ] || exit 0

# What the linker looks for, then the package that holds it: in Debian and Ubuntu, in Fedora, in Arch.
needed="
libXi.so.6        libxi6          libXi          libxi
libXxf86vm.so.1   libxxf86vm1     libXxf86vm     libxxf86vm
libXfixes.so.3    libxfixes3      libXfixes      libxfixes
libXrender.so.1   libxrender1     libXrender     libxrender
libxkbcommon.so.0 libxkbcommon0   libxkbcommon   libxkbcommon
libGL.so.1        libgl1          libglvnd-glx   libglvnd
libEGL.so.1       libegl1         libglvnd-egl   libglvnd
libSM.so.6        libsm6          libSM          libsm
libgomp.so.1      libgomp1        libgomp        gcc-libs
"
PATH=$PATH:/sbin:/usr/sbin # where ldconfig is, and not every user looks
present=" $(ldconfig -p | awk '{printf "%s ", $1}')"

missing() { # the given column of the rows whose library is not there
    echo "$needed" | while read -r library row; do
        [ -n "$library" ] || continue
        case $present in *" $library "*) continue ;; esac
        echo "$library $row" | awk -v column="$1" '{printf "%s ", $column}'
    done
}

[ -n "$(missing 1)" ] || exit 0

if command -v apt-get >/dev/null; then
    packages=$(missing 2)
    install="apt-get install -y --no-install-recommends"
    if [ "$(id -u)" = 0 ]; then may=
    elif sudo -n true 2>/dev/null; then may="sudo -n"
    else may=none
    fi
    if [ "$may" != none ]; then
        echo "installing what Blender's module links against: $packages"
        $may apt-get update -qq && $may env DEBIAN_FRONTEND=noninteractive $install -qq $packages >/dev/null && exit 0
    fi
    remedy="sudo $install $packages"
elif command -v dnf >/dev/null; then
    remedy="sudo dnf install $(missing 3)"
elif command -v pacman >/dev/null; then
    remedy="sudo pacman -S $(missing 4)"
else
    remedy="install the packages that hold them"
fi
echo "Blender's module links against $(missing 1)which this machine lacks: $remedy" >&2
exit 1
