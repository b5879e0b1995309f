import hashlib, numpy as np
from pathlib import Path
from dataclasses import dataclass
from .decode import decode
class DataError(Exception): ...
class Source:
    multi_label=False
class FolderSource(Source):
    def __init__(s,root):
        s.classes=sorted(p.name for p in Path(root).iterdir() if p.is_dir()); s.files=[(str(f),i) for i,c in enumerate(s.classes) for f in sorted((Path(root)/c).iterdir())]
        s.targets=np.array([t for _,t in s.files])
    def __len__(s): return len(s.files)
    def name(s,i): return s.files[i][0]
    def image(s,i): return decode(open(s.files[i][0],'rb').read(),s.files[i][0])
class Digits(Source):
    def __init__(s):
        from sklearn.datasets import load_digits
        d=load_digits(); s.x=d.images; s.targets=d.target.astype(np.int64); s.classes=[str(i) for i in range(10)]
    def __len__(s): return len(s.x)
    def name(s,i): return f"digits/{i}"
    def image(s,i):
        from PIL import Image
        return Image.fromarray((s.x[i]*255/16).astype(np.uint8)).convert("RGB")
class Subset(Source):
    def __init__(s,src,idx): s.src,s.idx=src,np.asarray(idx); s.classes=src.classes; s.targets=src.targets[s.idx]
    def __len__(s): return len(s.idx)
    def name(s,i): return s.src.name(int(s.idx[i]))
    def image(s,i): return s.src.image(int(s.idx[i]))
def stratified_split(t,f,seed):
    r=np.random.default_rng(seed); tr,va=[],[]
    for c in np.unique(t):
        i=r.permutation(np.flatnonzero(t==c)); k=max(1,round(f*len(i))); va+=list(i[:k]); tr+=list(i[k:])
    return np.sort(tr),np.sort(va)
@dataclass
class Splits:
    train: Source; val: Source; test: Source; rule: str
def fingerprint(s): return hashlib.sha256(("".join(s.name(i) for i in range(len(s)))+str(s.targets.tolist())).encode()).hexdigest()[:16]
def open_splits(spec,*,val_fraction=.1,seed=0):
    if spec=='digits':
        s=Digits(); a,b=stratified_split(s.targets,.2,0); train,test,val=Subset(s,a),Subset(s,b),None
    else:
        p=Path(spec); g=lambda n: FolderSource(p/n) if (p/n).exists() else None
        train,val,test=g('train'),g('val'),g('test')
    if val is None:
        a,b=stratified_split(train.targets,val_fraction,seed); train,val=Subset(train,a),Subset(train,b)
    return Splits(train,val,test,'prov')
