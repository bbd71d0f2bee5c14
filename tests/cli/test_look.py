import os, subprocess, sys
from .board import Board
from .stories import *
from fangnetz.core.actions import Alarm, Happened
def test_x(board: Board) -> None:
    lost(board)
    board.store.put_alarms((Alarm(kind="proof_void",subject="host3",sentence="host3 speaks as the very boot that was proven off (host3 is off: ipmi reads OFF): the proof is void, its fence device lies or feeds another machine",highest=True),Alarm(kind="not_protected",subject="host3",sentence="host3 could not be fenced now: host3 has no fence device")), board.epoch)
    failover(board)
    board.store.log([Happened(kind="operation_opened",subject="host2",sentence="failover of host2 begins: host2 has not reported for 3.1 s and answers no probe, while others answer the same prober",facts={"id":FAILOVER})])
    if True:
        fenced(board); planned(board); 
    if os.environ.get("FULL"): started(board); finished_later(board)
    board.watch({"host2": 6})
    def show(*words, w):
        r=subprocess.run([".venv/bin/python","-m","fangnetz.cli.main","--config",str(board.file),*words],capture_output=True,text=True,env={**os.environ,"COLUMNS":str(w),"FORCE_COLOR":"1" if os.environ.get("COLOR") else ""})
        with board.capsys.disabled():
            print(f"\n$ ({w})", words, r.returncode); print(r.stdout, r.stderr)
    for w in (80,140):
        for words in (["status"],["host","show","host2"],["operation","show",FAILOVER],["incident","show"],["incident","list"],["events"]):
            show(*words,w=w)
