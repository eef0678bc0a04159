#!/usr/bin/busybox sh
# The first and only program of the guest: two hosts as network namespaces on a bridge, real agents, one backend after the
# other. What is looked at is said on the console, a line each, and read by guest.ts:
#
#   @@scenario NAME    what follows is of this scenario
#   @@ok TITLE         @@fail TITLE @@ WHY
#
# Everything else is for people. The guest powers itself off at the end. SCENARIOS, from the kernel's command line, names those that
# are run, with commas; without it, all are.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /bin && /usr/bin/busybox --install -s /bin
# As Debian has it: busybox's shell takes its own ping where weft asks for the other one.
ln -sf /usr/bin/dash /bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
for module in /modules/*.ko; do insmod "$module" || echo "could not load $module"; done
echo "up after $(cut -d' ' -f1 /proc/uptime) s, Linux $(uname -r)"

# The shell would take its own.
ip() { /usr/sbin/ip "$@"; }

# Of a busy machine: what is right takes seconds.
PATIENCE_S=300
# Until the command succeeds; what it has said last when it never does.
eventually() {
  end=$(($(cut -d. -f1 /proc/uptime) + PATIENCE_S))
  until said=$("$@" 2>&1); do
    [ "$(cut -d. -f1 /proc/uptime)" -ge $end ] && echo "$said" && return 1
    # Every look is a few programs, which are dear here.
    sleep 1
  done
}
check() { # title, command
  title=$1
  shift
  if why=$("$@" 2>&1); then echo "@@ok $title"; else echo "@@fail $title @@ $(echo "$why" | tr '\n' '|' | tail -c 700)"; fi
  echo "   at $(cut -d' ' -f1 /proc/uptime) s"
}

# --- the network between the hosts -----------------------------------------------------------------------------------
sysctl -qw net.ipv6.conf.default.accept_dad=0 net.bridge.bridge-nf-call-iptables=0
ip link set lo up
ip link add br0 type bridge
ip addr add 10.98.0.1/24 dev br0
ip link set br0 up
# Packets of containers on their way between the hosts as they are, in no tunnel.
nft -f - <<'END'
table bridge wire {
  chain seen {
    type filter hook prerouting priority 0
    ip saddr { 10.42.0.0/16, 10.244.0.0/16 } counter
    ip6 saddr fd10:244::/56 counter
  }
}
END
for i in 1 2; do
  ip netns add h$i
  ip netns add c$i
  ip link add v$i type veth peer name eth0 netns h$i
  ip link set v$i master br0 up
  ip -n h$i link set lo up
  ip -n h$i addr add 10.98.0.1$i/24 dev eth0
  ip -n h$i addr add fd98::1$i/64 dev eth0
  ip -n h$i link set eth0 up
  ip -n h$i route add default via 10.98.0.1
  ip -n h$i route add default via fd98::1
  ip netns exec h$i sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip -n c$i link set lo up
done
# What comes by itself once the cables are in must be there before anything is compared.
are_linked() {
  for i in 1 2; do [ -n "$(ip -n h$i -6 addr show dev eth0 scope link)" ] || return 1; done
  ip netns exec h1 ping -c 1 -W 1 10.98.0.12 && ip netns exec h1 ping -c 1 -W 1 fd98::12
}
eventually are_linked || echo 'the hosts do not reach each other'

clear_packets() { nft list table bridge wire | sed -n 's/.*counter packets \([0-9]*\).*/\1/p' | awk '{ sum += $1 } END { print sum }'; }

# --- hosts ------------------------------------------------------------------------------------------------------------
start_agent() { # host
  # Not by the function of that name, which would be a process of its own. Probes would be among the packets that are counted here:
  # the answer of a host that has not heard of the other one yet leaves by its default route.
  # Each host has a charon, which has its files in the one folder.
  if [ "$STORE" = kube ]; then store="--kube-subnet-mgr --kubeconfig-file=$STATE/kubeconfig"; else store="--subnet-mgr=local --local-store=$STATE/subnets.db"; fi
  /usr/sbin/ip netns exec h$1 sh -c 'mount -t tmpfs run /run && exec "$@"' sh env WIREGUARD_KEY_FILE=$STATE/h$1/keys/wgkey NODE_NAME=node$1 flanneld $store \
    --net-config-path=$STATE/h$1/net-conf.json --subnet-file=$STATE/h$1/subnet.env --iface=eth0 --ip-masq --iptables-resync=60 --probe=off \
    --healthz-ip=127.0.0.1 --healthz-port=8081 >>$STATE/h$1/log 2>&1 &
  echo $! >$STATE/h$1/pid
}
stop_agent() { # host
  kill "$(cat $STATE/h$1/pid)" && eventually has_ended "$(cat $STATE/h$1/pid)"
}
# Nobody may have waited for it yet.
has_ended() { case $(sed -n 's/^State:.\(.\).*/\1/p' /proc/$1/status 2>/dev/null) in '' | Z) ;; *) return 1 ;; esac; }
ask() { # host, path
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" | ip netns exec h$1 nc 127.0.0.1 8081
}
is_ready() { # host
  { [ -s $STATE/h$1/subnet.env ] && ask $1 /readyz | grep -q '^HTTP/1.. 200'; } || { ask $1 /readyz; tail -n 3 $STATE/h$1/log; return 1; }
}
are_ready() { eventually is_ready 1 && eventually is_ready 2; }
value() { # host, name
  sed -n "s/^FLANNEL_$2=//p" $STATE/h$1/subnet.env
}
attach_container() { # host: a container behind cni0, as the bridge plugin makes it
  mtu=$(value $1 MTU)
  ip -n h$1 link add cni0 mtu $mtu up type bridge
  ip link add p0 mtu $mtu netns h$1 type veth peer name eth0 mtu $mtu netns c$1
  ip -n h$1 link set p0 master cni0 up
  ip -n c$1 link set eth0 up
  for name in SUBNET IPV6_SUBNET; do
    gateway=$(value $1 $name)
    [ -n "$gateway" ] || continue
    ip -n h$1 addr add $gateway dev cni0
    ip -n c$1 addr add ${gateway%1/*}2/${gateway#*/} dev eth0
    ip -n c$1 route add default via ${gateway%/*}
  done
}
detach_container() { ip -n h$1 link delete p0; ip -n h$1 link delete cni0; }
container() { # host, name
  gateway=$(value $1 $2)
  [ -n "$gateway" ] && echo ${gateway%1/*}2
}
# With packets that fill the MTU.
pings() { # from, to, name, bytes of headers
  address=$(container $2 $3) || { echo "no container on h$2"; return 1; }
  ip netns exec c$1 ping -c 1 -W 2 -s $(($(value $1 MTU) - $4)) $address
}
reach() {
  for name in $FAMILIES; do
    case $name in SUBNET) headers=28 ;; *) headers=48 ;; esac
    pings 1 2 $name $headers && pings 2 1 $name $headers || return 1
  done
}
state() { # host
  ip -n h$1 -br link | awk '{ print $1, $2 }' | sort
  ip -n h$1 -br addr | awk '{ $1 = $1; print }' | sort
  { ip -n h$1 xfrm policy list nosock; ip -n h$1 xfrm state; } | sed 's/^/xfrm /'
  { ip -n h$1 route show table all; ip -n h$1 -6 route show table all; } | sort
}
is_clean() {
  for i in 1 2; do
    state $i >$STATE/h$i/after
    diff $STATE/h$i/before $STATE/h$i/after || return 1
    ! ip netns exec h$i nft list ruleset 2>&1 | grep -i -e flannel -e weft || return 1
  done
}
cleanup() { # host
  ip netns exec h$1 weft cleanup --subnet-file $STATE/h$1/subnet.env --cni-conf-dir $STATE/h$1/cni
}
clean_up() {
  cleanup 1 & first=$!
  cleanup 2 && wait $first && is_clean
}

# --- what is looked at -----------------------------------------------------------------------------------------------
begin() { # name, Backend, `dual` for both families, `ipv6` for IPv6 alone; `kube` for that store; `nft` for nftables, last: `mixed` for nftables on the second host
  echo "@@scenario $1"
  STATE=/tmp/$1
  mkdir -p $STATE/h1 $STATE/h2
  STORE=local
  FAMILIES=SUBNET
  families='"Network":"10.244.0.0/16"'
  case "$*" in
    *' dual'*)
      FAMILIES='SUBNET IPV6_SUBNET'
      families="$families,\"EnableIPv6\":true,\"IPv6Network\":\"fd10:244::/56\""
      ;;
    *' ipv6 kube'*)
      STORE=kube
      FAMILIES=IPV6_SUBNET
      families='"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10:244::/56"'
      ;;
    *' kube'*)
      STORE=kube
      families='"Network":"10.42.0.0/16"'
      ;;
  esac
  [ $STORE = local ] || join_machine || echo 'the machine is not reached'
  for i in 1 2; do
    case "$* $i" in *' nft '* | *' mixed 2') rules=true ;; *) rules=false ;; esac
    echo "{$families,\"EnableNFTables\":$rules,\"Backend\":$2}" >$STATE/h$i/net-conf.json
    state $i >$STATE/h$i/before
  done
  before=$(clear_packets)
  start_agent 1
  start_agent 2
  check 'agents are ready' are_ready
  for i in 1 2; do attach_container $i; done
  check 'containers reach each other, with packets that fill the MTU' eventually reach
  check 'rules are in iptables or in nftables, as net-conf.json says' has_rules
}
end() {
  for i in 1 2; do detach_container $i; stop_agent $i; done
  check 'weft cleanup leaves nothing behind' clean_up
  # For whoever reads the console after a failure.
  grep -h '^[EW]' $STATE/h?/log | tail -n 20
  [ $STORE = local ] || leave_machine
}
# In each family, and in one of both alone.
has_rules() {
  for i in 1 2; do
    case $(cat $STATE/h$i/net-conf.json) in *'"EnableNFTables":true'*) wanted='0 1' ;; *) wanted='1 0' ;; esac
    for name in $FAMILIES; do
      case $name in SUBNET) save=iptables-save table='ip flannel-ipv4' ;; *) save=ip6tables-save table='ip6 flannel-ipv6' ;; esac
      rules=$(ip netns exec h$i $save -t nat | grep -c '^-A POSTROUTING .*-j FLANNEL-POSTRTG')
      tables=$(ip netns exec h$i nft list tables | grep -c "^table $table$")
      [ "$rules $tables" = "$wanted" ] || { echo "host $i, $name: $rules $tables instead of $wanted"; ip netns exec h$i nft list tables; return 1; }
    done
  done
}
comes_back() { # device..
  indexes=$(indexes_of "$@")
  for name in "$@"; do ip -n h1 link delete $name; done
  eventually are_others "$indexes" "$@" && eventually reach
}
indexes_of() { for name in "$@"; do ip netns exec h1 cat /sys/class/net/$name/ifindex || return 1; done; }
are_others() { # indexes of before, device..
  before_now=$1
  shift
  now=$(indexes_of "$@") && ! echo "$now" | grep -qxF "$before_now"
}
# With the addresses of IPv6, which go with the device going down: kernels before 6.2 rename none that is up.
is_renamed() { # device
  index=$(ip netns exec h1 cat /sys/class/net/$1/ifindex)
  had=$(routes_over $1)
  eventually rename_away $1 || return 1
  # Where packets go meanwhile; nobody may answer yet.
  for name in $FAMILIES; do pings 1 2 $name 48; done
  eventually has_routes $1 "$had" && eventually reach || return 1
  [ "$(ip netns exec h1 cat /sys/class/net/$1/ifindex)" = $index ] || { echo 'it is another device'; return 1; }
}
# In one go: the agent puts up what it finds down.
rename_away() { printf 'link set %s down\nlink set %s name stray\nlink set stray up\n' $1 $1 | ip -n h1 -batch -; }
routes_over() { { ip -n h1 route show dev $1; ip -n h1 -6 route show dev $1; } | sort; }
has_routes() { [ -n "$2" ] && [ "$(routes_over $1)" = "$2" ] || { ip -n h1 -d link; routes_over $1; return 1; }; }
# What `weft trace` says of a packet from container to container: all of these must be in it.
traces() { # expression..
  said=$(ip netns exec h1 weft trace c1 "$(container 2 SUBNET)" --wait 3 --subnet-file $STATE/h1/subnet.env --socket $STATE/h2/weft.sock)
  for wanted in "$@"; do echo "$said" | grep -q "$wanted" || { echo "no $wanted: $said"; return 1; }; done
}
tells_hops() { # hop..
  eventually traces '^✔ answered at this host' "$@"
}
# What the other host drops, and how that is told; put right again in any case.
tells_drop() { # hook, rule, expression..
  ip netns exec h2 nft "add table inet t; add chain inet t c { type filter hook $1 priority 0; }; add rule inet t c $2 drop"
  shift 2
  eventually traces "$@"
  told=$?
  ip netns exec h2 nft delete table inet t
  return $told
}
deleted() { check 'each device is deleted, and comes back with all it had' comes_back "$@"; }
in_tunnel() { [ "$(clear_packets)" = "$before" ] || { echo "$(clear_packets) packets, $before before"; return 1; }; }
straight() { [ "$(clear_packets)" -gt "$before" ]; }
# Somebody who is no host of the network; h1 would unwrap the packet.
refuses_stranger() {
  inside=$(container 1 SUBNET)
  before_rx=$(ip netns exec h1 cat /sys/class/net/flannel.ipip/statistics/rx_packets)
  ip link add strange type ipip local 10.98.0.1 remote 10.98.0.11
  ip link set strange up
  ip route add $inside/32 dev strange
  ping -c 1 -W 2 $inside
  ip link delete strange
  ip netns exec h1 nft list table inet weft_sources_10_244_0_0_16 | grep 'ip saddr != @peers4 counter packets [1-9]' || return 1
  [ "$(ip netns exec h1 cat /sys/class/net/flannel.ipip/statistics/rx_packets)" = "$before_rx" ] && eventually reach
}
set_down() {
  ip -n h1 link set $1 down
  eventually reach
}
wg_peers() { ip netns exec h1 wg show flannel-wg peers; }
loses_peer() {
  peer=$(wg_peers)
  ip netns exec h1 wg set flannel-wg peer "$peer" remove
  [ -z "$(wg_peers)" ] && eventually has_peer "$peer" && eventually reach
}
has_peer() { [ "$(wg_peers)" = "$1" ]; }
says_figures() {
  ask 1 /metrics | grep "^weft_wireguard_last_handshake_timestamp_seconds{.*$(value 2 SUBNET | sed 's/\.1\/.*/.0/').*} 1" &&
    ask 1 /metrics | grep '^weft_wireguard_bytes_total{.*direction="tx".*} [1-9]'
}
lists_handshake() {
  said=$(weft peers --socket $STATE/h1/weft.sock)
  echo "$said" | grep -E ' wireguard +- +- +[1-9][0-9.]*[KM]? +[1-9][0-9.]*[KM]? +[0-9]+[sm] +[0-9]+[sm]$' || { echo "$said"; return 1; }
}
tells_no_key() {
  for i in 1 2; do
    for key in "$(cat $STATE/h$i/keys/wgkey)" "$1"; do
      [ -n "$key" ] && ! grep -F "$key" $STATE/h?/log || { echo 'a key is in a log, or there is none'; return 1; }
    done
  done
}
# Without agent and device there is nothing but what the agent has left to keep packets from the default route.
keeps_in() {
  stop_agent 1
  ip -n h1 link delete flannel-wg
  ! pings 1 2 SUBNET 28 && in_tunnel
}
new_key() {
  old=$(ip netns exec h2 wg show flannel-wg peers)
  weft rotate-key --key-file $STATE/h1/keys/wgkey || return 1
  start_agent 1
  eventually is_ready 1 && eventually reach && [ "$(ip netns exec h2 wg show flannel-wg peers)" != "$old" ] && in_tunnel
}
takes_key() {
  old=$(ip netns exec h2 wg show flannel-wg peers)
  weft rotate-key --key-file $STATE/h1/keys/wgkey || return 1
  eventually knows_another "$old" && eventually reach && is_ready 1 && in_tunnel
}
knows_another() {
  [ "$(ip netns exec h2 wg show flannel-wg peers)" != "$1" ] &&
    [ "$(ip netns exec h2 wg show flannel-wg peers)" = "$(ip netns exec h1 wg show flannel-wg public-key)" ]
}
# Both agents start again with another Mode, and find the device that the one before has left.
changes_mode() { # mode, address of the peer
  stop_agent 1 && stop_agent 2 || return 1
  sed -i "s/\"Mode\":\"[a-z0-9]*\"/\"Mode\":\"$1\"/" $STATE/h?/net-conf.json
  start_agent 1
  start_agent 2
  are_ready && eventually goes_to "$2" && eventually reach && joined && in_tunnel
}
goes_to() { ip netns exec h1 wg show flannel-wg endpoints | grep -F "$1:51820" || { ip netns exec h1 wg show flannel-wg endpoints; return 1; }; }
joined() { [ -z "$(ip -n h1 -br link | grep flannel-wg-v6)" ] && [ "$(ip netns exec h1 wg show flannel-wg allowed-ips | wc -w)" = 3 ]; }

says_tunnel() {
  peer=$(value 2 SUBNET | sed 's/\.1\/.*/.0/')
  ask 1 /metrics | grep "^weft_ipsec_tunnel_up{peer=\"$peer/24\"} 1" &&
    ask 1 /metrics | grep '^weft_ipsec_bytes_total{.*direction="tx".*} [1-9]'
}
prefix() { value $1 SUBNET | sed 's/\.1\//.0\//'; }
out_policy() { ip -n h1 xfrm policy get src $(prefix 1) dst $(prefix 2) dir out; }
loses_policy() {
  ip -n h1 xfrm policy delete src $(prefix 1) dst $(prefix 2) dir out || return 1
  # What leaves now has no policy of its own.
  pings 1 2 SUBNET 28
  eventually out_policy && eventually reach && in_tunnel
}
charon_of() { # host
  for id in $(ip netns pids h$1); do [ "$(readlink /proc/$id/exe)" = /usr/lib/ipsec/charon ] && echo $id; done
}
loses_charon() {
  id=$(charon_of 1)
  kill -9 $id || { echo "no charon"; return 1; }
  eventually is_other_charon $id && eventually is_ready 1 && eventually reach && in_tunnel
}
is_other_charon() { now=$(charon_of 1); [ -n "$now" ] && [ "$now" != "$1" ]; }
tells_no_psk() { grep -q 'Wrote subnet file' $STATE/h1/log && ! grep -F "$ESP_KEY" $STATE/h?/log; }
stays_in() {
  stop_agent 1
  [ -z "$(charon_of 1)" ] || { echo 'charon goes on without the agent'; return 1; }
  ! pings 1 2 SUBNET 28 && in_tunnel || return 1
  start_agent 1
  eventually is_ready 1 && eventually reach && in_tunnel
}

PSK='/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak='
scenario_wireguard() {
  begin wireguard "{\"Type\":\"wireguard\",\"PSK\":\"$PSK\",\"PersistentKeepaliveInterval\":25}" dual
  check 'weft trace shows each hop, and what the peer’s firewall drops' eval "
    tells_hops 'this host flannel-wg out' '10.98.0.12 flannel-wg in' '10.98.0.12 cni0 out' &&
    tells_drop input 'udp dport 51820' 'lost at 10.98.0.12, host: host:filtered-in'"
  deleted flannel-wg flannel-wg-v6
  check 'devices of both families are renamed, and get back name and routes' eval 'is_renamed flannel-wg && is_renamed flannel-wg-v6 && in_tunnel'
  check 'the device is set down, and comes back up' set_down flannel-wg-v6
  check 'handshake and bytes of the peer are in the metrics' eventually says_figures
  check 'weft peers lists bytes and last handshake of the peer' lists_handshake
  check 'a peer is removed, and comes back' loses_peer
  check 'no key is in a log' tells_no_key "$PSK"
  check 'a new key is taken while the agent runs, and reaches the peer' takes_key
  check 'nothing leaves in clear, also without agent and device' keeps_in
  check 'a new key reaches the peer, and nothing leaves in clear' new_key
  end
}

# The way to the API server: by the machine that the guest runs on, whose address there is 10.0.2.2.
join_machine() {
  ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 || return 1
  sysctl -qw net.ipv4.ip_forward=1
  nft 'add table ip machine; add chain ip machine out { type nat hook postrouting priority 100; }; add rule ip machine out oifname eth0 masquerade'
  # It is written once the server is there.
  eventually tftp -g -r kubeconfig -l $STATE/kubeconfig 10.0.2.2
}
leave_machine() {
  nft delete table ip machine
  sysctl -qw net.ipv4.ip_forward=0
  ip addr flush dev eth0
  ip link set eth0 down
}

# Of the stores, Kubernetes alone can have a network without IPv4.
scenario_wireguard_ipv6() {
  begin wireguard-ipv6 '{"Type":"wireguard"}' ipv6 kube mixed
  check 'one device, of IPv6, and no clear packet' eval 'is_alone flannel-wg-v6 && in_tunnel'
  end
}
is_alone() { [ "$(ip -n h1 -br link | grep -o '^flannel-wg[^ ]*')" = $1 ] || { ip -n h1 -br link; return 1; }; }

scenario_wireguard_auto() {
  begin wireguard-auto '{"Type":"wireguard","Mode":"auto"}' dual nft
  check 'one tunnel carries both families, in no clear packet' eval 'joined && in_tunnel'
  deleted flannel-wg
  check 'with Mode ipv6, the tunnel of both families is carried by IPv6' changes_mode ipv6 '[fd98::12]'
  check 'with Mode ipv4, the tunnel of both families is carried by IPv4' changes_mode ipv4 10.98.0.12
  end
}

ESP_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
scenario_ipsec() {
  begin ipsec "{\"Type\":\"ipsec\",\"PSK\":\"$ESP_KEY\"}"
  check 'packets between the hosts are in the tunnel' in_tunnel
  check 'the tunnel and its bytes are in the metrics' eventually says_tunnel
  check 'a policy is deleted, and comes back; nothing leaves in clear' loses_policy
  check 'charon is killed, and comes back with all it had' loses_charon
  check 'the key is in no log' tells_no_psk
  check 'nothing leaves in clear without agent and charon, which ends with it' stays_in
  end
}

scenario_ipsec_udp() {
  begin ipsec-udp "{\"Type\":\"ipsec\",\"PSK\":\"$ESP_KEY\",\"UDPEncap\":true}" nft
  check 'packets between the hosts are in the tunnel' in_tunnel
  end
}

scenario_ipip() {
  begin ipip '{"Type":"ipip"}'
  check 'packets between the hosts are in the tunnel' in_tunnel
  check 'weft trace shows each hop, and the rule of the peer that drops the packet' tells_drop forward "ip daddr $(container 2 SUBNET)" \
    'this host flannel.ipip out' 'this host eth0 out' '10.98.0.12 eth0 in' '10.98.0.12 flannel.ipip in' \
    'lost at 10.98.0.12, host flannel.ipip: netfilter' 'Rule: table inet t, chain c: ip daddr'
  check 'what a stranger sends is not unwrapped' refuses_stranger
  deleted flannel.ipip
  check 'the device is renamed, and gets back name and routes' is_renamed flannel.ipip
  end
}

scenario_ipip_direct() {
  begin ipip-direct '{"Type":"ipip","DirectRouting":true}' kube nft
  check 'packets go straight to a host on the same link' straight
  end
}

scenario_vxlan() {
  begin vxlan '{"Type":"vxlan"}' dual
  check 'packets between the hosts are in the tunnel' in_tunnel
  deleted flannel.1 flannel-v6.1
  end
}

scenario_udp() {
  begin udp '{"Type":"udp"}' kube mixed
  check 'packets between the hosts are in the tunnel' in_tunnel
  deleted flannel0
  # While there was no device, packets took the default route: udp has nothing to hide.
  before=$(clear_packets)
  check 'wireguard, as k3s has it, takes the place of udp: its device goes, and no host that has changed sends in clear' becomes_wireguard
  check 'one device, of IPv4, and no clear packet' eval 'is_alone flannel-wg && in_tunnel'
  end
}
# One host after the other. Meanwhile they do not reach each other.
becomes_wireguard() {
  for i in 1 2; do
    stop_agent $i || return 1
    # With the rules that it had.
    case $i in 1) rules=false ;; *) rules=true ;; esac
    sed "s/^{/{\"EnableNFTables\":$rules,/" /k3s-wireguard.json >$STATE/h$i/net-conf.json
    # From here on its datagrams of udp are clear packets, too.
    nft "add rule bridge wire seen ip saddr 10.98.0.1$i udp dport 8285 counter"
    start_agent $i
    eventually is_ready $i || return 1
    [ $i = 2 ] || ! pings 1 2 SUBNET 28 || { echo 'hosts of both backends reach each other'; return 1; }
  done
  eventually reach && in_tunnel && has_rules && is_gone flannel0
}
is_gone() { for i in 1 2; do ! ip -n h$i -br link | grep "^$1 " || return 1; done; }

# What it makes is its own, beside the hosts here. With the hops of the container's packet, as the machine's own backends have them in
# test/netns/lab-backends.test.ts.
scenario_lab() {
  echo '@@scenario lab'
  check 'weft lab with ipip: all passes, and the walk shows the tunnel and its outer header' lab_shows ipip 1480 \
    "$(lab_walk 'h1 flannel.ipip/h1 IP in IP/h1 eth0/underlay port1/underlay port2/h2 eth0/h2 IP in IP/h2 flannel.ipip')"
  check 'weft lab with wireguard: all passes, and the walk shows the devices at both ends' lab_shows wireguard 1420 \
    "$(lab_walk 'h1 flannel-wg/underlay wireguard tunnel/h2 flannel-wg')"
}
lab_walk() { # hops from routing to routing
  echo "h1c1 application/h1c1 socket · UDP · IP/h1c1 eth0/h1 cni0/h1 routing/$1/h2 routing/h2 cni0/h2c1 eth0/h2c1 IP · UDP · socket/h2c1 application/"
}
lab_shows() { # backend, bytes of a full packet, hops
  said=$(weft lab --backend $1 --hosts 2 --json 2>/tmp/lab.log)
  code=$?
  tail -n 12 /tmp/lab.log
  [ $code = 0 ] || { echo "exit code $code: $said" | sed 's/{.*"failures"://; s/,"durationMs.*//'; return 1; }
  hops=$(echo "$said" | sed 's/.*"walk":{//; s/"nativeWalk".*//' | tr '{' '\n' | sed -n 's/^"node":"\([^"]*\)","place":"\([^"]*\)".*/\1 \2/p' | tr '\n' /)
  [ "$hops" = "$3" ] || { echo "the walk: $hops"; return 1; }
  echo "$said" | grep -q "\"mtuPing\":{\"packetBytes\":$2," || { echo "no packet of $2 bytes"; return 1; }
}

for scenario in $(echo "${SCENARIOS:-wireguard,wireguard-auto,ipsec,ipsec-udp,ipip,vxlan,lab,ipip-direct,udp,wireguard-ipv6}" | tr ',-' ' _'); do
  scenario_$scenario
done

echo "done after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
