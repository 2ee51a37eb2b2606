// Stream memory operations (CUDA Driver API, "Stream Memory Operations"): writes that the device
// makes when it gets there, waits that hold a stream until memory has a value. Markers of a meter
// are these.
#include "src/sim/client/address_map.h"
#include "src/sim/client/capture.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

bool Holds(uint64_t address, bool wide, uint64_t value, unsigned flags) {
  uint64_t now = wide ? __atomic_load_n(reinterpret_cast<uint64_t*>(address), __ATOMIC_ACQUIRE)
                      : __atomic_load_n(reinterpret_cast<uint32_t*>(address), __ATOMIC_ACQUIRE);
  switch (flags & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ:  // "(int)(*addr - value) >= 0": wraps around
      return wide ? int64_t(now - value) >= 0 : int32_t(uint32_t(now) - uint32_t(value)) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
      return now == value;
    case CU_STREAM_WAIT_VALUE_AND:
      return (now & value) != 0;
    default: {
      uint64_t nor = ~(now | value);
      return (wide ? nor : nor & 0xFFFFFFFF) != 0;
    }
  }
}

// The address must be known to the driver: device memory or registered host memory.
CUresult Check(const CUstreamBatchMemOpParams& op) {
  switch (op.operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64: {
      bool wide = op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                  op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
      uint64_t address = op.waitValue.address;
      if (address % (wide ? 8 : 4) != 0) return CUDA_ERROR_INVALID_VALUE;
      auto r = AddressMap::Get().Find(address);
      if (!r || r->kind == RangeKind::kReserved) return CUDA_ERROR_INVALID_VALUE;
      return CUDA_SUCCESS;
    }
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
      return CUDA_ERROR_NOT_SUPPORTED;  // CAN_FLUSH_REMOTE_WRITES is 0
    case CU_STREAM_MEM_OP_BARRIER:
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult Put(CUstream stream, std::vector<CUstreamBatchMemOpParams> ops) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  for (const auto& op : ops) {
    if (CUresult r = Check(op)) return r;
  }
  return SubmitOrCapture(s, MemOpNode{std::move(ops)});
}

CUresult Put(CUstream stream, CUstreamBatchMemOpType type, CUdeviceptr address, uint64_t value,
             unsigned flags) {
  CUstreamBatchMemOpParams op{};
  op.operation = type;
  op.waitValue.address = address;  // the same place in both structs
  op.waitValue.value64 = value;
  op.waitValue.flags = flags;
  return Put(stream, {op});
}

}  // namespace

std::vector<Work> WorksOf(const MemOpNode& n, Context*) {
  std::vector<Work> works;
  for (const CUstreamBatchMemOpParams& op : n.ops) {
    Work w;
    bool wide = op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    if (op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_32 ||
        op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64) {
      w.effect = [address = op.writeValue.address, value = op.writeValue.value64, wide](uint64_t) {
        if (wide) {
          __atomic_store_n(reinterpret_cast<uint64_t*>(address), value, __ATOMIC_RELEASE);
        } else {
          __atomic_store_n(reinterpret_cast<uint32_t*>(address), uint32_t(value), __ATOMIC_RELEASE);
        }
      };
    } else if (op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 ||
               op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64) {
      w.kind = OpKind::kExternal;
      uint64_t value = wide ? op.waitValue.value64 : op.waitValue.value;
      w.satisfied = [address = op.waitValue.address, value, wide, flags = op.waitValue.flags] {
        return Holds(address, wide, value, flags);
      };
    }
    works.push_back(std::move(w));
  }
  return works;
}

CUresult sim_cuStreamWriteValue32_v2(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int flags) {
  return Put(s, CU_STREAM_MEM_OP_WRITE_VALUE_32, a, v, flags);
}
CUresult sim_cuStreamWriteValue64_v2(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int flags) {
  return Put(s, CU_STREAM_MEM_OP_WRITE_VALUE_64, a, v, flags);
}
CUresult sim_cuStreamWaitValue32_v2(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int flags) {
  return Put(s, CU_STREAM_MEM_OP_WAIT_VALUE_32, a, v, flags);
}
CUresult sim_cuStreamWaitValue64_v2(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int flags) {
  return Put(s, CU_STREAM_MEM_OP_WAIT_VALUE_64, a, v, flags);
}
CUresult sim_cuStreamBatchMemOp_v2(CUstream s, unsigned int count, CUstreamBatchMemOpParams* ops,
                                   unsigned int flags) {
  if (ops == nullptr || count == 0 || count > 256 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return Put(s, std::vector<CUstreamBatchMemOpParams>(ops, ops + count));
}
CUresult sim_cuStreamWriteValue32(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int flags) {
  return sim_cuStreamWriteValue32_v2(s, a, v, flags);
}
CUresult sim_cuStreamWriteValue64(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int flags) {
  return sim_cuStreamWriteValue64_v2(s, a, v, flags);
}
CUresult sim_cuStreamWaitValue32(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int flags) {
  return sim_cuStreamWaitValue32_v2(s, a, v, flags);
}
CUresult sim_cuStreamWaitValue64(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int flags) {
  return sim_cuStreamWaitValue64_v2(s, a, v, flags);
}
CUresult sim_cuStreamBatchMemOp(CUstream s, unsigned int count, CUstreamBatchMemOpParams* ops,
                                unsigned int flags) {
  return sim_cuStreamBatchMemOp_v2(s, count, ops, flags);
}

}  // namespace divvy::sim
