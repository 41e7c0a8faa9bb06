// Tile sizes, grids and loops for a kernel that was found with symbolic dimensions, and what they would cost.
#pragma once

#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "replay.hpp"

namespace tilesmith {

struct Device {
    double multiprocessors = 132;
    double dram_bytes_per_s = 4.4e12;
    double l2_bytes_per_s = 8e12;
    double matrix_flops = 7e11 * 1e3;
    double vector_flops = 3e13;
    double launch_s = 3e-6;
    double pass_s = 1e-7;              // of one pass of a loop: waiting for its loads, a barrier
    double register_bytes = 256 << 10; // of one multiprocessor
    double shared_bytes = 227 << 10;   // of one block
    double blocks = 2147483647;        // of one kernel
};

struct Sizes {
    std::vector<std::int64_t> extents; // of each base
    std::vector<double> input_bytes;   // of one element of each input
    double element_bytes = 2;          // of everything that is computed
};

struct Schedule {
    std::array<std::int64_t, kMaxBases + 1> cuts{}; // how many blocks lie along each base
    std::int64_t loop = 1;
    std::int64_t split = 1; // how many parts the grid makes of a dimension whose sum is split

    bool operator==(const Schedule &) const = default;
};

struct Cost {
    static constexpr double kNever = std::numeric_limits<double>::infinity();

    double seconds = kNever; // where no schedule fits
    double bytes = 0;        // read and written once
    double traffic = 0;      // moved between blocks and the second-level cache
    double flops = 0;
    double shared = 0;
    Schedule schedule;

    bool fits() const { return seconds < kNever; }
};

class Scheduler {
  public:
    Scheduler(const Space &space, const Sizes &sizes, const Device &device);

    // The cheapest schedule of an implementation whose split dimensions, and the partial sums that it reads, have so
    // many parts. Costs nothing but time to ask again.
    Cost best(const Kernels &kernels, const Implementation &implementation, const Signature &signature, std::int64_t split);

    // From below: what a kernel must read and write or its matrix products, whichever takes longer, and its launch.
    double bound(const Kernels &kernels, const Signature &signature, std::int64_t split) const;

    // Whether the number of split parts matters to a kernel.
    bool depends_on_split(const Kernels &kernels, const Implementation &implementation, const Signature &signature) const;

    std::uint64_t tried = 0, fitting = 0;

  private:
    class Setup;

    bool partial(Tensor t) const;
    double element_bytes(Class c) const;
    double elements(Free free, std::int64_t split) const;
    double bytes(const Kernels &kernels, const Signature &signature, std::int64_t split) const;
    double products(const Kernels &kernels, const Implementation &made, std::int64_t split) const;

    const Space &space_;
    const Sizes &sizes_;
    Device device_;
    std::vector<std::pair<Class, double>> input_bytes_;
};

} // namespace tilesmith
