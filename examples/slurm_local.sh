#!/usr/bin/env bash
# A whole SLURM on this machine, for trying things out: munged, slurmctld and slurmd with all their files in DIR.
#
#   apt-get install slurm-wlm munge          # Debian, Ubuntu
#   sudo examples/slurm_local.sh start DIR   # then: export SLURM_CONF=DIR/slurm.conf; sinfo
#   sudo examples/slurm_local.sh stop DIR
#
# Partition `low` is the default; a job in `high` preempts it: SIGTERM, 30 s of grace, then back into the queue.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$2"
directory=$(realpath "$2")
export SLURM_CONF=$directory/slurm.conf

stop() {
  for daemon in slurmd slurmctld munged; do
    [ -s "$directory/$daemon.pid" ] || continue
    process=$(cat "$directory/$daemon.pid")
    kill "$process" 2>/dev/null || continue
    for _ in $(seq 50); do  # slurmd first sees its jobs out
      kill -0 "$process" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$process" 2>/dev/null || true
  done
}

if [ "$1" = stop ]; then
  scancel --user=root 2>/dev/null || true
  stop
  exit
fi

mkdir -p "$directory/state" "$directory/spool"
[ -f "$directory/munge.key" ] || mungekey --create --keyfile="$directory/munge.key"
cat > "$SLURM_CONF" <<EOF
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$directory/munge.socket,cred_expire=5   # a requeued job waits that long, and not two minutes
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
EOF
munged --force --key-file="$directory/munge.key" --socket="$directory/munge.socket" \
  --pid-file="$directory/munged.pid" --log-file="$directory/munged.log" --seed-file="$directory/munged.seed"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 30); do
  sinfo --noheader --format=%T 2>/dev/null | grep -q -e idle -e mixed -e allocated && { sinfo; exit; }
  sleep 1
done
echo "SLURM did not come up; see $directory/*.log" >&2
stop
exit 1
