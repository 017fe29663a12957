// SPDX-License-Identifier: Apache-2.0
// Runner::RunFromHost: groups of pictures are copied to the GPU and cubes back while others are
// computed.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "cuda/check.h"
#include "cuda/runner.h"
#include "cuda/views.h"

namespace mstpp::cuda {
namespace {

// Of the pieces in which cubes are copied from the GPU: each goes on to the caller's memory while
// the next comes.
constexpr int64_t kPieceElements = 1 << 21;

template <class Buffer>
bool Grow(Buffer& buffer, size_t bytes) {
  if (buffer.size() >= bytes) return false;
  buffer = {};
  buffer = Buffer(bytes);
  return true;
}

void Record(const Event& event, cudaStream_t stream) {
  Check(cudaEventRecord(event.get(), stream), "recording an event");
}
void Wait(cudaStream_t stream, const Event& event) {
  Check(cudaStreamWaitEvent(stream, event.get()), "waiting for an event");
}

}  // namespace

template <class Element>
class Runner::HostRun {
 public:
  HostRun(Runner& runner, const TensorView& input, const MutableTensorView& output, Padding padding,
          const Groups& groups)
      : runner_(runner),
        input_(input),
        output_(output),
        padding_(padding),
        lanes_(groups.lanes),
        sizes_(CopiedGroups(input.n, groups)),
        count_(static_cast<int64_t>(sizes_.size())),
        image_bytes_(static_cast<size_t>(Pictures<float>(nullptr, 1).stride_n) * sizeof(float)),
        cube_bytes_(static_cast<size_t>(Cubes<Element>(nullptr, 1).stride_n) * sizeof(Element)),
        row_bytes_(static_cast<size_t>(Cubes<Element>(nullptr, 1).stride_h) * sizeof(Element)),
        piece_rows_(std::max<int64_t>(1, kPieceElements / Cubes<Element>(nullptr, 1).stride_h)) {
    for (int64_t first = 0; const int64_t size : sizes_) {
      first_.push_back(first);
      first += size;
    }
  }

  // A group's kernels are enqueued before an earlier group's cubes are collected: so the GPU does
  // not wait for threads that copy.
  void Run() {
    for (int64_t i = 0; i < std::min<int64_t>(count_, kSlots); ++i) Prepare(i);
    for (int64_t k = 0; k < count_; ++k) {
      CopyIn(k);
      Launch(k);
      if (k >= kSlots) Collect(k - kSlots);
      CopyOut(k);
    }
    for (int64_t k = std::max<int64_t>(0, count_ - kSlots); k < count_; ++k) Collect(k);
  }

 private:
  template <class T>
  BasicTensorView<T> Pictures(T* memory, int64_t images) const {
    return BasicTensorView<T>::Nchw(memory, images, input_.c, input_.h, input_.w);
  }
  template <class T>
  BasicTensorView<T> Cubes(T* memory, int64_t images) const {
    return CubeAt(memory, images, output_.c, output_.h, output_.w);
  }
  int64_t Rows(int64_t images) const { return images * output_.c * output_.h; }
  int64_t Pieces(int64_t images) const { return (Rows(images) + piece_rows_ - 1) / piece_rows_; }
  template <class T>
  BasicTensorView<T> GroupOf(const BasicTensorView<T>& batch, int64_t k) const {
    return Images(batch, first_[k], sizes_[k]);
  }
  const Slot& SlotOf(int64_t k) const { return *runner_.slots_[k % kSlots]; }
  Lane& LaneOf(int64_t k) const { return runner_.LaneAt(k % lanes_); }

  // The first group of a slot is its largest.
  void Prepare(int64_t k) const {
    std::unique_ptr<Slot>& slot = runner_.slots_[k];
    if (slot == nullptr) slot = std::make_unique<Slot>();
    Grow(slot->image, sizes_[k] * image_bytes_);
    Grow(slot->host_image, sizes_[k] * image_bytes_);
    // What no kernel writes, the ends of rows of halves, is copied too.
    if (Grow(slot->cube, sizes_[k] * cube_bytes_)) {
      Check(cudaMemsetAsync(slot->cube.data(), 0, slot->cube.size(), runner_.in_.get()),
            "clearing memory");
    }
    Grow(slot->host_cube, sizes_[k] * cube_bytes_);
    while (static_cast<int64_t>(slot->copied_out.size()) < Pieces(sizes_[k])) {
      slot->copied_out.emplace_back();
    }
  }

  void CopyIn(int64_t k) const {
    const Slot& slot = SlotOf(k);
    const cudaStream_t in = runner_.in_.get();
    if (k >= kSlots) {  // the group before has left this memory
      Check(cudaEventSynchronize(slot.copied_in.get()), "copying a picture to the GPU");
      Wait(in, slot.computed);
    }
    CopyView(GroupOf(input_, k), Pictures(slot.host_image.as<float>(), sizes_[k]));
    Check(cudaMemcpyAsync(slot.image.data(), slot.host_image.data(), sizes_[k] * image_bytes_,
                          cudaMemcpyHostToDevice, in),
          "copying a picture to the GPU");
    Record(slot.copied_in, in);
  }

  void Launch(int64_t k) const {
    const Slot& slot = SlotOf(k);
    Lane& lane = LaneOf(k);
    const int64_t images = sizes_[k];
    Shape shape = runner_.PaddedShape(images, input_.h, input_.w);
    shape.half_cube = std::is_same_v<Element, uint16_t>;
    Wait(lane.main(), slot.copied_in);
    if (k >= kSlots) Wait(lane.main(), slot.copied_out[Pieces(sizes_[k - kSlots]) - 1]);
    lane.Launch(shape, MakeIo(Pictures<const float>(slot.image.template as<float>(), images),
                              Cubes(slot.cube.template as<Element>(), images), padding_));
    Record(slot.computed, lane.main());
  }

  void CopyOut(int64_t k) const {
    const Slot& slot = SlotOf(k);
    const cudaStream_t out = runner_.out_.get();
    Wait(out, slot.computed);
    ForPieces(k, [&](int64_t first, int64_t last, const Event& copied) {
      const size_t begin = first * row_bytes_, bytes = (last - first) * row_bytes_;
      Check(cudaMemcpyAsync(slot.host_cube.data() + begin, slot.cube.data() + begin, bytes,
                            cudaMemcpyDeviceToHost, out),
            "copying a cube from the GPU");
      Record(copied, out);
    });
  }

  // To the caller's memory.
  void Collect(int64_t k) const {
    const auto from = Cubes(SlotOf(k).host_cube.template as<const Element>(), sizes_[k]);
    const MutableTensorView to = GroupOf(output_, k);
    ForPieces(k, [&](int64_t first, int64_t last, const Event& copied) {
      Check(cudaEventSynchronize(copied.get()), "running the network");
      CopyRows(from, to, first, last);
    });
  }

  // f(its first row, the row after its last, its event) for every piece of a group's cubes.
  template <class F>
  void ForPieces(int64_t k, const F& f) const {
    const int64_t rows = Rows(sizes_[k]);
    for (int64_t first = 0, i = 0; first < rows; first += piece_rows_, ++i) {
      f(first, std::min(first + piece_rows_, rows), SlotOf(k).copied_out[i]);
    }
  }

  Runner& runner_;
  TensorView input_;
  MutableTensorView output_;
  Padding padding_;
  int lanes_;
  std::vector<int64_t> sizes_, first_;  // of the groups
  int64_t count_;
  size_t image_bytes_, cube_bytes_, row_bytes_;
  int64_t piece_rows_;
};

void Runner::RunFromHost(const TensorView& input, const MutableTensorView& output, Padding padding,
                         const Groups& groups) {
  if (half_cubes_) {
    HostRun<uint16_t>(*this, input, output, padding, groups).Run();
  } else {
    HostRun<float>(*this, input, output, padding, groups).Run();
  }
}

}  // namespace mstpp::cuda
