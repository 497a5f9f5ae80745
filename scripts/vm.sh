#!/usr/bin/env bash
# vm.sh: run fanq against the real nft queue rule, in a throw-away virtual machine.
#
# Role: boots Debian's stock cloud kernel on four emulated CPUs, with an initramfs made here of
# busybox, nft, ip, fanq, fanq-bench and an example, and lets scripts/vm/guest.sh do its checks in there.
# Proves: what guest.sh lists (fanout, bypass, single queue, hashed queues, connections, clean
# removal, faults) and systemd.sh, on a kernel which has nft_queue and conntrack attributes. Passes only if the guest
# reports no failure and at least one success.
# Does not: build fanq, install or change this machine's kernel, use KVM or a network device, or
# measure speed; the CPUs are emulated, so time in the guest means nothing.
#
# Usage: scripts/vm.sh            after `cargo build --release --bins --example show_packets`
#   FANQ_BIN_DIR=DIR              where fanq, fanq-bench and examples/ are (default: target/release)
#   FANQ_VM_TIMEOUT_S=SECONDS     bound on the whole boot (default: 700)
#   FANQ_VM_CHECKS=NAME,NAME      only these functions of scripts/vm, such as check_cpu_offline, and systemd's
#   CI=1                          what cannot run here is a failure, not a skip
# The kernel is kept in target/vm/kernel (delete it to fetch a newer one); the guest's console is
# in target/vm/console.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

bin_dir=${FANQ_BIN_DIR:-target/release}
timeout_s=${FANQ_VM_TIMEOUT_S:-700}
out=target/vm
console=$out/console.log
scratch=
qemu=

# nft_counter is a module of its own only in kernels before 5.17.
modules=(nft_queue nfnetlink_queue nft_ct nft_reject_inet nf_conntrack_netlink veth nft_chain_nat nft_nat nft_numgen)
modules_optional=(nft_counter vrf sctp)

main() {
    [[ $(uname -m) == x86_64 ]] || skip "needs an x86_64 machine, this is $(uname -m)"
    local binary
    for binary in fanq fanq-bench examples/show_packets; do
        [[ -x $bin_dir/$binary ]] ||
            fail "no $bin_dir/$binary: run 'cargo build --release --bins --example show_packets' first"
    done
    need qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio nft:nftables ip:iproute2 \
        depmod:kmod setpriv:util-linux || skip "$why"

    mkdir -p "$out"
    scratch=$(mktemp -d "$PWD/$out/scratch.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    fetch_kernel
    pack_initramfs
    boot
    judge
}

clean_up() {
    if [[ -n $qemu ]]; then
        kill "$qemu" 2>/dev/null || true # `timeout` hands the signal on to its qemu
        wait "$qemu" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}

# Leaves vmlinuz, the modules numbered in loading order, and a stamp, in target/vm/kernel.
fetch_kernel() {
    local stamp="${modules[*]} ${modules_optional[*]}"
    if [[ -f $out/kernel/stamp && $(<"$out/kernel/stamp") == "$stamp" ]]; then
        say "kernel $(<"$out/kernel/release"), fetched earlier"
        return
    fi
    command -v apt-get >/dev/null || skip "there is no apt-get to fetch Debian's kernel with"
    download_kernel || {
        ((EUID != 0)) || apt-get update -qq || true
        download_kernel || skip "apt-get could not fetch linux-image-cloud-amd64"
    }

    local tree=$scratch/tree kernel=$scratch/kernel release
    dpkg-deb -x "$scratch"/linux-image-*.deb "$tree"
    [[ -d $tree/lib ]] || ln -s usr/lib "$tree/lib"
    release=$(ls "$tree/lib/modules")
    depmod -b "$tree" "$release"
    mkdir -p "$kernel/modules"
    cp "$tree/boot/vmlinuz-$release" "$kernel/vmlinuz"
    pick_modules "$tree" "$release" "$kernel/modules"
    echo "$release" >"$kernel/release"
    echo "$stamp" >"$kernel/stamp"
    rm -rf "$out/kernel"
    mv "$kernel" "$out/kernel"
    say "kernel $release, fetched now"
}

download_kernel() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [[ -n $package ]] || return 1
    say "downloading $package (unpacked only, never installed)"
    (cd "$scratch" && apt-get download -qq -o APT::Sandbox::User=root "$package")
}

# pick_modules TREE RELEASE TO: copies the modules and all they depend on as NN-name.ko, plain.
pick_modules() {
    local tree=$1 release=$2 to=$3 list=$scratch/modules module path number=10
    for module in "${modules[@]}" "${modules_optional[@]}"; do
        modprobe -C /dev/null -d "$tree" -S "$release" --show-depends "$module" 2>/dev/null ||
            [[ " ${modules_optional[*]} " == *" $module "* ]] ||
            fail "kernel $release has no module $module"
    done >"$list"
    # "insmod PATH" in an order which can be loaded; "builtin NAME" needs nothing.
    while read -r path; do
        module=$(basename "$path")
        case $module in
        *.xz) need xz:xz-utils || skip "$why"; xz -dc "$path" ;;
        *.zst) need zstd:zstd || skip "$why"; zstd -dcq "$path" ;;
        *) cat "$path" ;;
        esac >"$to/$number-${module%%.*}.ko"
        number=$((number + 1))
    done < <(awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$list")
}

pack_initramfs() {
    local root=$scratch/root
    mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,var} "$root/modules"
    ln -s ../run "$root/var/run"
    cp "$out"/kernel/modules/*.ko "$root/modules/"
    add_program "$(command -v busybox)" /bin/busybox
    ln -s busybox "$root/bin/sh"
    add_program "$(command -v nft)" /usr/sbin/nft
    add_program "$(command -v ip)" /usr/sbin/ip
    add_program "$bin_dir/fanq" /usr/bin/fanq
    add_program "$bin_dir/fanq-bench" /usr/bin/fanq-bench
    add_program "$bin_dir/examples/show_packets" /usr/bin/show_packets
    # The only means here to send SCTP by; without it that case is skipped, aloud.
    if need socat:socat; then
        add_program "$(command -v socat)" /usr/bin/socat
    else
        say "no SCTP in the guest: $why"
    fi
    # The only means here to have UDP joined on its way.
    if need ethtool:ethtool; then
        add_program "$(command -v ethtool)" /usr/sbin/ethtool
    else
        say "no joined UDP in the guest: $why"
    fi
    install -m 755 scripts/vm/init "$root/init"
    install -m 644 scripts/vm/guest.sh scripts/vm/steps.sh scripts/vm/flows.sh scripts/vm/doctor.sh \
        scripts/vm/selftests.sh scripts/vm/faults.sh scripts/vm/systemd.sh "$root/"
    add_systemd "$root"
    # nft looks the names of protocols up.
    printf '%s\n' 'icmp 1 ICMP' 'tcp 6 TCP' 'udp 17 UDP' 'ipv6-icmp 58 IPv6-ICMP' 'sctp 132 SCTP' >"$root/etc/protocols"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs.cpio"
}

# add_systemd ROOT: systemd with fanq's unit and one that runs systemd.sh. Without it that is skipped, aloud.
add_systemd() {
    local root=$1 units=$1/etc/systemd/system program target
    if ! need /usr/lib/systemd/systemd:systemd systemctl:systemd; then
        say "no systemd in the guest: $why"
        return
    fi
    for program in /usr/lib/systemd/systemd /usr/lib/systemd/systemd-executor "$(command -v systemctl)"; do
        [[ ! -x $program ]] || add_program "$program" "$program"
    done
    mkdir -p "$units/fanq.service.d" "$root/etc/fanq"
    : >"$root/etc/machine-id"
    cp packaging/systemd/fanq.service "$units/"
    printf '%s\n' 'queues = "0-3"' 'on-orphan = "accept"' >"$root/etc/fanq/fanq.toml"
    for target in sysinit basic shutdown; do
        printf '[Unit]\nDescription=%s\n' "$target" >"$units/$target.target"
    done
    # There is no journal, and the machine is slow.
    printf '%s\n' '[Service]' 'StandardOutput=append:/run/fanq.out' 'StandardError=append:/run/fanq.err' \
        'WatchdogSec=15s' 'TimeoutStartSec=90s' 'TimeoutStopSec=90s' >"$units/fanq.service.d/vm.conf"
    printf '%s\n' '[Unit]' 'DefaultDependencies=no' '[Service]' 'Type=oneshot' 'TimeoutStartSec=infinity' \
        'Environment=PATH=/usr/sbin:/usr/bin:/bin' \
        'ExecStart=/bin/sh -c "exec sh /systemd.sh >/dev/console 2>&1"' >"$units/check.service"
    printf '%s\n' '[Unit]' 'Wants=check.service' 'After=check.service' >"$units/default.target"
}

# add_program FROM TO: copies a program and the shared libraries it names, loader included.
add_program() {
    local library
    install -D -m 755 "$1" "$scratch/root$2"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
        install -D -m 755 "$library" "$scratch/root$library"
    done
}

boot() {
    local started=$SECONDS status=0
    # KVM is not used on purpose: nested, it may start and then hang. -cpu max: whatever
    # instructions the programs were built for.
    setpriv --pdeathsig TERM timeout --kill-after=5 "$timeout_s" qemu-system-x86_64 -accel tcg,thread=multi -cpu max \
        -smp 4 -m 1024 -nographic -no-reboot -nic none \
        -kernel "$out/kernel/vmlinuz" -initrd "$out/initramfs.cpio" \
        -append "console=ttyS0 quiet panic=-1${FANQ_VM_CHECKS:+ fanq.checks=$FANQ_VM_CHECKS}" \
        </dev/null >"$console" 2>&1 &
    qemu=$!
    wait "$qemu" || status=$?
    qemu=
    say "the guest ran for $((SECONDS - started)) s, console in $console"
    ((status != 124)) || say "it was stopped at the bound of $timeout_s s"
}

judge() {
    tr -d '\r' <"$console" | grep -aoE 'VM-(CHECK|RESULT) .*' || true
    ! grep -aq 'VM-CHECK skip' "$console" || say "$(grep -ac 'VM-CHECK skip' "$console") checks skipped: see above"
    if tr -d '\r' <"$console" | grep -aE '^VM-RESULT [1-9][0-9]* passed, 0 failed$' >/dev/null; then
        return
    fi
    printf -- '--- what else %s ends with ---\n' "$console" >&2
    grep -av '^VM-' "$console" | tail -n 60 >&2
    fail "not every check passed"
}

main "$@"
