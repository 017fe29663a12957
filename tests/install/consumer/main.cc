// SPDX-License-Identifier: Apache-2.0
#include <mstpp/mstpp.h>

#include <cstdio>

int main() {
  const mstpp::Engine engine(mstpp::Model::Default());
  mstpp::Image image{.width = 9, .height = 8, .data = std::vector<float>(3 * 9 * 8, 128.0f)};
  const mstpp::Cube cube = engine.Run(image);
  std::printf("mstpp %s on %s: %zu values\n", mstpp::Version(), engine.options().device.c_str(),
              cube.data.size());
  return cube.data.size() == 31 * 9 * 8 ? 0 : 1;
}
