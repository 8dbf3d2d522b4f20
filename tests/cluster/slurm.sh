#!/usr/bin/env bash
# A real SLURM of two nodes on this machine for the tests here: installs Debian's packages and starts the daemons,
# one slurmd a node, each on a port of its own.
#
#   tests/cluster/slurm.sh          install if need be, start what does not run, wait until both nodes take jobs
#   tests/cluster/slurm.sh stop     end the daemons
#
# Needs root on Debian or Ubuntu. A /etc/slurm/slurm.conf that it did not write is left alone.
set -euo pipefail

STATE=/var/lib/harness-slurm
CONF=/etc/slurm/slurm.conf
MARK="# Written by tests/cluster/slurm.sh"

fail() {
    printf 'slurm.sh: %s\n' "$1" >&2
    exit 1
}

install_packages() {
    if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then
        return
    fi
    command -v apt-get >/dev/null || fail "there is no SLURM here, and no apt-get to install it with"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
}

configure() {
    mkdir -p "$STATE" "$(dirname "$CONF")"
    cat >"$CONF" <<EOC
$MARK
ClusterName=harness
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is requeued may start again once the old credential has expired.
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
StateSaveLocation=$STATE/state
SlurmdSpoolDir=$STATE/spool-%n
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd-%n.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd-%n.log
NodeName=node[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=$(env -u OMP_NUM_THREADS nproc) RealMemory=$(awk "/MemTotal/ {print int(\$2 / 1024 * 0.45)}" /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
EOC
}

start_munge() {
    if munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then return; fi
    install -d -o munge -g munge -m 0755 /run/munge
    [ -s /etc/munge/munge.key ] || su -s /bin/sh munge -c 'mungekey --create'
    su -s /bin/sh munge -c '/usr/sbin/munged --force'
    munge -n | unmunge >/dev/null || fail "munged does not answer"
}

start_slurm() {
    scontrol ping 2>/dev/null | grep -q UP || slurmctld
    for _ in $(seq 60); do
        scontrol ping 2>/dev/null | grep -q UP && break
        sleep 0.5
    done
    for node in node1 node2; do
        pgrep -f "slurmd -N $node\$" >/dev/null || slurmd -N "$node"
    done
    scontrol update NodeName=node[1-2] State=RESUME 2>/dev/null || true
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated)$')" = 2 ] && return
        sleep 0.5
    done
    tail -n 20 "$STATE"/*.log >&2
    fail "not both nodes take jobs: $(sinfo -N -l 2>&1)"
}

stop() {
    for name in slurmd-node1 slurmd-node2 slurmctld; do
        [ -s "$STATE/$name.pid" ] && kill "$(cat "$STATE/$name.pid")" 2>/dev/null || true
    done
}

[ "${1:-}" = stop ] && { stop; exit; }
[ "$(id -u)" = 0 ] || fail "needs root, to install packages and to start daemons"
if [ -e "$CONF" ] && ! grep -qF "$MARK" "$CONF"; then
    fail "$CONF belongs to another SLURM; start that one instead"
fi
install_packages
configure
start_munge
start_slurm
sinfo
