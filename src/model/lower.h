// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/network.h"
#include "model/primitives.h"

namespace mstpp {

// How S-MSA is computed (docs/architecture.md): the same function, other products.
enum class AttentionForm {
  kPublished,     // queries, keys and values of every pixel
  kRestructured,  // from S = X'X: no queries and keys of pixels
};

// Takes every block of the network apart. `input` is the padded picture; returns the padded cube.
// Weights keep their PyTorch names, and their shapes but for added extents of 1. (The restructured
// form has copies of some beside them, arranged by heads.)
Primitives::Id Lower(const Network& network, AttentionForm form, Primitives& target,
                     Primitives::Id input);

}  // namespace mstpp
