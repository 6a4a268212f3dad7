# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# packages.sh - to be sourced: installs Debian packages only if some are missing.

# shellcheck disable=SC2034
build_packages=(gcc libc6-dev meson ninja-build pkgconf libglib2.0-dev libjson-glib-dev zlib1g-dev libzstd-dev
    liburing-dev libdeflate-dev libgnutls28-dev libnbd-dev libbz2-dev libcurl4-gnutls-dev libedit-dev)
# shellcheck disable=SC2034
test_packages=(check dmg2img e2fsprogs fio gnutls-bin libnbd-bin libqcow-utils libsubunit-dev libvhdi-utils
    libvmdk-utils nbdkit nginx-light openssl perl python3 python3-libnbd python3-vmdkstream qemu-utils shellcheck)
# shellcheck disable=SC2034
long_packages=(busybox-static cpio qemu-system-x86)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Does nothing, and needs no network, when all are installed. Where there is no apt-get the caller's build says what is
# missing.
install_packages() {    # PACKAGE...
    local package
    local -a missing=()

    if ! command -v apt-get >/dev/null; then
        echo "packages: no apt-get on this system; assuming that these or their equals are there: $*"
        return 0
    fi
    for package; do
        package_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "packages: all $# are installed"
        return 0
    fi
    echo "packages: installing ${missing[*]}"
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "packages: run this as root, or install sudo, or install the packages above yourself" >&2
        return 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install -y \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# Configures DIRECTORY, new or not, with the options, and builds it.
build_in() {            # DIRECTORY MESON-OPTIONS...
    local directory=$1

    shift
    if [ -f "$directory/build.ninja" ]; then
        meson setup --reconfigure "$directory" "$@" >"$directory/configure.log" 2>&1 ||
            meson setup --wipe "$directory" "$@"
    else
        meson setup "$directory" "$@"
    fi
    ninja -C "$directory"
}
