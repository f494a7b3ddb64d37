// A GPU that is not there. Its tensors say that they lie on "cuda:0", their values lie in ordinary memory, and their
// operators run on the CPU, as PyTorch's backends "out of tree" may have it (the boxed fallback of a dispatch key).
//
// What is as on a GPU: the device of every result, what is refused because devices are mixed or because NumPy cannot
// read a tensor, a random generator of its own, pinned memory, a memory with an end, and autocast. What is not: its
// kernels and their rounding, streams (everything is done at once), Triton, NCCL (what processes send goes by gloo), and
// a second GPU of one machine.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace {

const c10::Device GPU(c10::kCUDA, 0);
std::atomic<int64_t> allocated{0}, peak{0}, capacity{int64_t(8) << 30};

void count(int64_t bytes) {
  int64_t now = allocated += bytes;
  if (now > capacity) {
    allocated -= bytes;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes, " bytes (emulated).");
  }
  int64_t before = peak;
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

// ---- memory --------------------------------------------------------------------------------------

struct Held {
  c10::Storage storage;
  int64_t bytes;
};

c10::DataPtr held(const c10::Storage& on_cpu) {
  count(int64_t(on_cpu.nbytes()));
  auto* held = new Held{on_cpu, int64_t(on_cpu.nbytes())};
  return {on_cpu.mutable_data(), held, [](void* one) {
            allocated -= static_cast<Held*>(one)->bytes;
            delete static_cast<Held*>(one);
          }, GPU};
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto on_cpu = c10::Storage(c10::Storage::use_byte_size_t(), n, c10::GetAllocator(c10::kCPU), true);
    return held(on_cpu);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};
Memory memory;

std::mutex pinning;
std::unordered_map<const void*, size_t> pinned;
struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = std::malloc(n ? n : 1);
    std::lock_guard<std::mutex> lock(pinning);
    pinned[data] = n;
    return {data, data, raw_deleter(), c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* data) {
      std::lock_guard<std::mutex> lock(pinning);
      pinned.erase(data);
      std::free(data);
    };
  }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};
PinnedMemory pinned_memory;
C10_UNUSED const bool known = (c10::SetAllocator(c10::kCUDA, &memory), true);

// ---- streams, devices, random numbers ----------------------------------------------------------

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::kCUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return GPU; }
  c10::Device getDevice() const override { return GPU; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::Stream getDefaultStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void synchronizeEvent(void*) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct GpuGenerator final : at::CPUGeneratorImpl {
  GpuGenerator() { device_ = GPU; }
  void lend(bool out) { device_ = out ? c10::Device(c10::kCPU) : GPU; }
};
at::Generator first;

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> lock(pinning);
    for (auto& [begin, size] : pinned) {
      if (data >= begin && data < static_cast<const char*>(begin) + size) return true;
    }
    return false;
  }
  c10::Allocator* getCUDADeviceAllocator() const override { return &memory; }
  c10::Device getDeviceFromPtr(void*) const override { return GPU; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    auto made = at::make_generator<GpuGenerator>();
    if (!first.defined()) first = made;
    return made;
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    if (!first.defined()) getNewGenerator(0);
    return first;
  }
};

// ---- operators ------------------------------------------------------------------------------------

struct Call {
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_cpu;      // of the GPU -> its alias
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_gpu;      // alias -> of the GPU
  std::unordered_map<c10::TensorImpl*, at::Tensor> original;       // alias -> tensor of the GPU
  std::vector<at::Tensor> aliases;                                  // the stack lets go of them
  std::vector<GpuGenerator*> lent;
  bool any_gpu = false;

  c10::Storage alias(const c10::Storage& gpu) {
    auto* key = gpu.unsafeGetStorageImpl();
    auto [at, is_new] = to_cpu.try_emplace(key);
    if (is_new) {
      c10::DataPtr data(gpu.mutable_data(), c10::kCPU);
      at->second = c10::Storage(c10::Storage::use_byte_size_t(), gpu.nbytes(), std::move(data),
                                c10::GetAllocator(c10::kCPU), true);
      to_gpu.emplace(at->second.unsafeGetStorageImpl(), gpu);
    }
    return at->second;
  }

  at::Tensor alias(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    any_gpu = true;
    auto made = at::detail::make_tensor<c10::TensorImpl>(
        alias(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) made.unsafeGetTensorImpl()->set_wrapped_number(true);
    original.emplace(made.unsafeGetTensorImpl(), tensor);
    aliases.push_back(made);
    return made;
  }

  c10::Storage gpu_of(const c10::Storage& cpu) {
    auto found = to_gpu.find(cpu.unsafeGetStorageImpl());
    if (found != to_gpu.end()) return found->second;
    c10::Storage made(c10::Storage::use_byte_size_t(), cpu.nbytes(), held(cpu), &memory, true);
    to_gpu.emplace(cpu.unsafeGetStorageImpl(), made);
    return made;
  }

  at::Tensor back(const at::Tensor& cpu) {
    if (!cpu.defined() || cpu.is_cuda()) return cpu;
    auto found = original.find(cpu.unsafeGetTensorImpl());
    if (found != original.end()) return found->second;
    auto made = at::detail::make_tensor<c10::TensorImpl>(
        gpu_of(cpu.storage()), c10::DispatchKeySet(c10::DispatchKey::CUDA), cpu.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
    return made;
  }

  void take_over() {  // of what the operator gave another size or other memory
    for (auto& [impl, tensor] : original) {
      auto* mine = tensor.unsafeGetTensorImpl();
      auto gpu = gpu_of(impl->storage());
      if (gpu.data() != impl->storage().data() || gpu.nbytes() != impl->storage().nbytes()) {
        gpu.unsafeGetStorageImpl()->set_data_ptr_noswap(held(impl->storage()));
        gpu.unsafeGetStorageImpl()->set_nbytes(impl->storage().nbytes());
      }
      if (gpu.unsafeGetStorageImpl() != mine->storage().unsafeGetStorageImpl()) mine->set_storage_keep_dtype(gpu);
      if (impl->sizes() != mine->sizes() || impl->strides() != mine->strides() ||
          impl->storage_offset() != mine->storage_offset()) {
        mine->set_sizes_and_strides(impl->sizes(), impl->strides(), impl->storage_offset());
      }
    }
  }
};

bool may_mix(const std::string& name) {
  return name == "aten::copy_" || name == "aten::_copy_from" || name == "aten::_copy_from_and_resize" ||
      name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_" ||
      name == "aten::set_" || name == "aten::_has_compatible_shallow_copy_type";
}

template <class Change>
c10::IValue with_tensors(const c10::IValue& value, const Change& change) {  // of a tensor, a list, or a list of lists
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> all;
    for (const at::Tensor& one : value.toTensorVector()) all.push_back(change(one));
    return all;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> all;
    for (const std::optional<at::Tensor>& one : value.toOptionalTensorVector()) {
      all.push_back(one ? std::optional<at::Tensor>(change(*one)) : std::nullopt);
    }
    return all;
  }
  if (value.isList() && value.toList().elementType()->kind() == c10::TypeKind::ListType) {
    auto all = value.toList().copy();
    for (size_t at = 0; at < all.size(); ++at) all.set(at, with_tensors(all.get(at), change));
    return all;
  }
  return value;
}

void on_cpu(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto first_arg = stack->size() - schema.arguments().size();
  Call call;
  std::string strangers;
  auto moved = [&](const at::Tensor& tensor) {
    if (tensor.defined() && !tensor.is_cuda() && tensor.dim() > 0) strangers += tensor.device().str() + " ";
    return call.alias(tensor);
  };
  for (auto at = first_arg; at < stack->size(); ++at) {
    auto& value = (*stack)[at];
    if (value.isDevice() && value.toDevice().is_cuda()) {
      value = c10::Device(c10::kCPU);
    } else if (value.isStorage() && value.toStorage().device().is_cuda()) {
      value = call.alias(value.toStorage());
    } else if (value.isGenerator() && value.toGenerator().device().is_cuda()) {
      auto* lent = static_cast<GpuGenerator*>(value.toGenerator().unsafeGetGeneratorImpl());
      lent->lend(true);
      call.lent.push_back(lent);
    } else {
      value = with_tensors(value, moved);
    }
  }
  TORCH_CHECK(!call.any_gpu || strangers.empty() || may_mix(schema.name()),
              "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and ", strangers,
              "(", schema.name(), ")");
  const bool draws = op.hasTag(at::Tag::nondeterministic_seeded) && call.lent.empty();
  static std::mutex drawing;
  std::unique_lock<std::mutex> lock(drawing, std::defer_lock);
  at::Tensor state;
  auto cpu = at::detail::getDefaultCPUGenerator();
  auto& own = at::detail::getCUDAHooks().getDefaultGenerator(0);
  if (draws) {
    lock.lock();
    state = cpu.get_state();
    cpu.set_state(own.get_state());
  }
  auto end = [&] {
    if (draws) {
      const_cast<at::Generator&>(own).set_state(cpu.get_state());
      cpu.set_state(state);
    }
    for (auto* lent : call.lent) lent->lend(false);
  };
  try {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  } catch (...) {
    end();
    throw;
  }
  end();
  call.take_over();
  auto returned = [&](const at::Tensor& tensor) { return call.back(tensor); };
  for (auto at = stack->size() - schema.returns().size(); at < stack->size(); ++at) {
    (*stack)[at] = with_tensors((*stack)[at], returned);
  }
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& from, bool) {
  Call call;
  auto to = call.alias(self);
  to.copy_(call.alias(from));
  return self;
}

void resize_storage(const at::Tensor& tensor, int64_t bytes) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  auto data = memory.allocate(size_t(bytes));
  std::memcpy(data.get(), storage->data(), std::min(size_t(bytes), storage->nbytes()));
  storage->set_data_ptr_noswap(std::move(data));
  storage->set_nbytes(size_t(bytes));
}

TORCH_LIBRARY(emulated_gpu, m) { m.def("resize_storage(Tensor tensor, int bytes) -> ()", &resize_storage); }
struct Timer final : c10d::Timer {
  explicit Timer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event start, Event end) override {
    return getTimeRef(start) == c10d::kUnsetTime || getTimeRef(end) == c10d::kUnsetTime
        ? std::nullopt
        : std::optional<int64_t>(getTimeRef(end) - getTimeRef(start));
  }
};

TORCH_LIBRARY_IMPL(c10d, CUDA, m) {  // gloo is built without CUDA's tensors; what is sent lies where it looks anyway
  for (auto name : {"send", "recv_", "reduce_", "broadcast_", "allreduce_", "allreduce_coalesced_", "allgather_",
                    "_allgather_base_", "allgather_coalesced_", "allgather_into_tensor_coalesced_", "reduce_scatter_",
                    "_reduce_scatter_base_", "gather_", "scatter_", "alltoall_", "alltoall_base_", "barrier"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&on_cpu>());
  }
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("copy_", &copy);
  m.impl("record_stream", [](at::Tensor&, c10::Stream) {});
}

}  // namespace

using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)
namespace c10d {
C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kCUDA, ::Timer)
}

extern "C" {
int64_t gpu_allocated() { return allocated; }
int64_t gpu_peak() { return peak; }
void gpu_reset_peak() { peak = allocated.load(); }
int64_t gpu_capacity() { return capacity; }
void gpu_set_capacity(int64_t bytes) { capacity = bytes; }
}
