// The kernel level: programs of several kernels, each found by a block search of what its inputs allow.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "block.hpp"

namespace tilesmith {

struct KernelLimits {
    BlockLimits block;
    int inputs = 4;  // of one kernel
    int kernels = 1; // of a program
};

// Block searches, each made once for a set of inputs. There are few tensors that can stand between kernels, so that a
// search of three kernels repeats the same block search eight times, and of four kernels two hundred times.
class Catalogue {
  public:
    Catalogue(const Space &space, const BlockLimits &limits, Control &control) : search_(space, limits, control) {}

    // `inputs` sorted, and `hash` the sum of their mixed numbers.
    const Kernels &kernels(std::span<const Tensor> inputs, std::uint64_t hash, bool last);

    static std::uint64_t hash_of(Tensor t) { return mix(t); }
    std::size_t size() const { return entries_.size(); }
    const Counters &counters() const { return search_.counters; }
    // How many distinct tensors kernels read or made.
    std::size_t tensors() const;

  private:
    BlockSearch search_;
    FlatMap<std::uint32_t> places_;
    std::deque<Kernels> entries_;
};

// One kernel of a program.
struct Choice {
    const Kernels *kernels = nullptr;
    std::uint32_t signature = 0;

    const Signature &chosen() const { return kernels->signatures[signature]; }
};

using Plan = std::vector<Choice>;

// The tensors that a program starts from: its inputs, each in every view that is part of the target.
std::vector<Tensor> program_inputs(const Space &space);

// Every program of at most so many kernels, once: its kernels come in the one order in which their keys grow (the set
// of inputs as a number, the newest tensor in the highest bit, then the signature). No kernel computes what is there,
// and everything that is computed is used.
class Listing {
  public:
    using Visit = std::function<void(const Plan &)>;

    Listing(const Space &space, const KernelLimits &limits, Control &control);

    // Raises Overflow where more tensors stand between kernels than it can count.
    void run(const Visit &visit);

    Catalogue &catalogue() { return catalogue_; }
    std::uint64_t nodes() const { return nodes_; }

  private:
    static constexpr int kMostTensors = 64;
    using Set = std::uint64_t; // of tensors of a pool

    // A program in the making; its tensors are the first `count` of all that are kept.
    struct State {
        int count = 0;
        Set needed = 0; // made and not yet used, by owners
        Set last_inputs = 0;
        std::uint32_t last_signature = 0;
        int targets_left = 0;
    };

    bool has(const State &state, Tensor t) const;
    void add(State &state, Tensor t, bool needs);
    Set owned(Set inputs) const;
    void finish(const State &state, Set inputs);
    void expand(const State &state);
    const Kernels &kernels(Set inputs, bool last);

    const Space &space_;
    KernelLimits limits_;
    Control &control_;
    Catalogue catalogue_;
    std::array<Tensor, kMostTensors> tensors_{};
    std::array<std::uint64_t, kMostTensors> hashes_{};
    std::array<std::uint8_t, kMostTensors> owners_{}; // the first name of the same tensor
    std::vector<Set> subsets_;                        // sorted
    std::uint64_t nodes_ = 0;
    Plan plan_;
    const Visit *visit_ = nullptr;
};

} // namespace tilesmith
