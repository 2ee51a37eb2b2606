"""nvitop as a library; its program is run by the test itself."""
import json

from nvitop import Device

print(json.dumps([{"name": d.name(), "total": d.memory_total(), "used": d.memory_used(),
                   "uuid": d.uuid()} for d in Device.all()]))
