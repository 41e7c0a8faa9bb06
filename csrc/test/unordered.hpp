// Programs of kernels without cache, order or memo: what the listing is compared with.
#pragma once

#include <array>
#include <set>
#include <utility>
#include <vector>

#include "../kernels.hpp"

namespace tilesmith::test {

// What a kernel reads, sorted, and what it makes.
using Made = std::pair<std::vector<Tensor>, std::array<Tensor, kMaxStores>>;
using Programs = std::multiset<std::set<Made>>;

// Every set of kernels, each once, of a program with one output: each kernel is searched anew for every set of tensors
// that is there, in whatever order, and nothing is asked of it but to compute what is not there yet.
Programs unordered(const Space &space, const KernelLimits &limits);

// The listing's.
Programs listed(const Space &space, const KernelLimits &limits);

} // namespace tilesmith::test
