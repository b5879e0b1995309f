from PIL import Image
import io
class BadImage(Exception):
    def __init__(s,name,reason): super().__init__(f"{name}: {reason}"); s.name=name; s.reason=reason
def decode(data,name,max_pixels=10**8):
    try: return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as e: raise BadImage(name,str(e))
