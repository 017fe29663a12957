// SPDX-License-Identifier: Apache-2.0
#include "mstpp/engine.h"

#include <fmt/format.h>

#include <new>
#include <utility>

#include "engine/pipeline.h"
#include "engine/registry.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

Pipeline MakePipeline(const Model& model, Options options) {
  if (options.threads < 0) {
    throw Error(ErrorCode::kInvalidArgument, "threads",
                fmt::format("{} is not a number of threads; 0 means all", options.threads));
  }
  const DeviceChoice choice = ChooseDevice(Backends(), options.device, options.precision, options);
  options.device = choice.Name();
  try {
    auto backend = choice.entry->create(model, options, choice.index);
    return Pipeline(model, std::move(options), std::move(backend));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, choice.Name(),
                fmt::format("not enough memory to pack {} weights", model.parameters()));
  }
}

}  // namespace

struct Engine::Impl {
  Pipeline pipeline;
};

Engine::Engine(const Model& model, const Options& options)
    : impl_(new Impl{MakePipeline(model, options)}) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Cube Engine::Run(const Image& image) const { return impl_->pipeline.Run(image); }

void Engine::Run(const TensorView& input, const MutableTensorView& output) const {
  impl_->pipeline.Run(input, output);
}

void Engine::RunWithTaps(const TensorView& input, const MutableTensorView& output,
                         const Tap& tap) const {
  impl_->pipeline.RunWithTaps(input, output, tap);
}

std::vector<KernelTime> Engine::Profile(const TensorView& input, const MutableTensorView& output,
                                        int warm_up, int runs) const {
  return impl_->pipeline.Profile(input, output, warm_up, runs);
}

const Model& Engine::model() const { return impl_->pipeline.model(); }
const Options& Engine::options() const { return impl_->pipeline.options(); }
const std::string& Engine::device_description() const {
  return impl_->pipeline.device_description();
}

}  // namespace mstpp
