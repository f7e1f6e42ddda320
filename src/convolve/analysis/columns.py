"""text placeholder"""
from convolve.analysis.report import Report
def text(r: Report) -> str:
    out=[]
    for w in r.rows:
        f=w.fields[0].axes if w.fields else ()
        out.append(f"{w.name:20} {w.op:12} {w.detail:14} {','.join(w.sources):20} {w.outputs[0]} {w.parameters} {w.macs} {w.macs_valid} rf {[ (a.size,a.seen,str(a.stride),a.start) for a in f]} {w.status} {w.note} {w.saved}")
    return "\n".join(out)+"\n"+str(r.totals)+str(r.memory)
