// The search of block graphs: everything that one kernel can compute from given tensors.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "control.hpp"
#include "ground.hpp"
#include "reach.hpp"
#include "space.hpp"

namespace tilesmith {

// A tensor between kernels: its class and, where shapes are oriented, its dimensions.
using Tensor = std::uint64_t;
inline constexpr Tensor kNoTensor = ~Tensor{0};
constexpr Tensor tensor(Class c, Dims dims) { return dims << 16 | c; }
constexpr Class class_of(Tensor t) { return static_cast<Class>(t); }
constexpr Dims dims_of(Tensor t) { return t >> 16; }
static_assert(8 * kRank + 16 <= 64);

inline constexpr int kMaxValues = 32; // of one block graph: so many fit the bits of a word
inline constexpr int kMaxStores = 2;

// One way to compute what a signature says: a run of steps in the kernel's list. Loads are values 0 to `loads` - 1, in
// the order of the inputs.
struct Implementation {
    Walk walk;
    std::uint8_t steps = 0;
    std::array<std::uint8_t, kMaxStores> stores{}; // values, in the order of the signature's outputs
    std::uint32_t first_step = 0;
};

// What some implementations compute: one or two tensors, the smaller first.
struct Signature {
    std::array<Tensor, kMaxStores> outputs{kNoTensor, kNoTensor};
    std::vector<Implementation> implementations;
};

// All that kernels compute from the same inputs.
struct Kernels {
    std::vector<Tensor> inputs; // sorted
    std::vector<Signature> signatures;
    std::vector<Step> steps;
};

// Why candidates were not grown, and how many states were.
struct Counters {
    std::uint64_t states = 0;
    std::uint64_t candidates = 0;
    std::uint64_t shape = 0;     // extents or dimensions that do not fit
    std::uint64_t phase = 0;     // joins the loop with what comes after it, or gathers what does not vary
    std::uint64_t table = 0;     // no value on the way to the target
    std::uint64_t duplicate = 0; // computed before
    std::uint64_t bound = 0;     // too few operators are left
    std::uint64_t blocks = 0;    // block searches
    // The fewest operators more that a kernel which the bound cut, and which was to be the last, would need at least.
    int short_by = kNotShort;

    static constexpr int kNotShort = 1000;

    void operator+=(const Counters &other);
};

struct BlockLimits {
    int operators = 11; // loads, steps and accumulators
    int stores = 2;
    // Whether two stores must have a load in common: without one they are two kernels side by side.
    bool connected = false;
    // Whether constant factors are left to the kernel that loads a tensor: it can apply them as well as the one before.
    bool unscaled = false;
    // Whether a tensor between kernels has every dimension whole, or split over the grid: none has a tile's extent.
    bool whole = false;
};

// What a block search looks for: whatever leads to a target but no target (unless there are several), targets alone, or
// both.
enum class Goal : std::uint8_t { between, last, any };

// Whether limits let a kernel store this, wherever it was made.
bool may_be_stored(const Space &space, const BlockLimits &limits, Goal goal, Class c);

class BlockSearch {
  public:
    BlockSearch(const Space &space, const BlockLimits &limits, Control &control);

    // Everything that one kernel computes of these tensors, using each. Only where targets alone are looked for the
    // distance to one bounds the search. Incomplete where the control stopped.
    Kernels run(std::span<const Tensor> inputs, Goal goal);

    Counters counters;

  private:
    // One of the kernel in the making. What it takes on its way to a store does not change as others come.
    struct Value {
        Class cls = 0;
        Reach::Node node = 0;
        std::uint8_t phase = 0;
        std::uint8_t steps = 0; // the fewest to a store
        std::uint8_t alone = 0; // the fewest before a step joins it or it is stored
        std::uint8_t after = 0; // the fewest after these that are no joins
        bool goes_on = false;   // whether a step joins it, or it may be stored
        std::uint32_t loads = 0; // that it is computed from
        Dims dims = 0;
    };

    struct Made {
        Class cls = kNoClass;
        std::uint8_t phase = 0;
        Dims dims = 0;
    };

    // Of a kind of value in this walk: whether any step joins it, whether it may be stored, and the fewest steps that it takes alone before one
    // does or it is stored.
    struct Needs {
        bool joins = false, stored = false;
        std::uint8_t alone = 0;
    };
    // A class's partners that lead to a store, with what the step makes as their result.
    struct Moves {
        std::uint32_t first = 0, end = 0;
    };

    bool look(std::span<const Tensor> inputs);
    Ground &ground(const Walk &walk);
    void walk(const Walk &walk);
    bool survey();
    void find_leads(Reach::Node from);
    void find_needs(Reach::Node from);
    void list_moves();
    void place(const Value &value);
    void settle(Value &value, const Reach::Far &far) const;
    void grow();
    void attempt(const Partner &partner, int high, int low);
    bool make(const Partner &partner, int high, int low, Made &made);
    bool broadcasts(Dims a, Dims b, Dims &joined) const;
    bool remove_dims(Dims dims, Bases over, Dims &left) const;
    bool affords(int steps, int left);
    bool within_bounds();
    void finish();
    void keep(std::array<int, kMaxStores> stores, int count);
    bool may_be_stored(Class c) const;
    bool storable(Class c, std::uint8_t phase) const;
    bool renamable(const std::array<int, kMaxStores> &stores, int count) const;

    const Space &space_;
    BlockLimits limits_;
    Control &control_;
    bool oriented_, several_targets_, squares_;
    std::array<std::vector<std::uint8_t>, 3> storable_; // by goal, of each class: whether limits let it be stored
    Reach reach_, ways_; // of classes in some walk; of kinds of values in this one
    std::vector<std::unique_ptr<Ground>> grounds_;      // of walks that were met
    Ground *ground_ = nullptr;    // of this one
    std::vector<Needs> needs_;    // of each kind
    std::vector<std::uint8_t> leads_; // of each partner: whether what it makes can lead to a store
    std::vector<Moves> moves_of_; // each class, of those below
    std::vector<Partner> moves_;
    std::vector<std::pair<Reach::Node, Reach::Node>> singles_;

    // The kernel in the making.
    std::array<Value, kMaxValues> values_{};
    std::array<Step, kMaxValues> steps_{};
    int count_ = 0, inputs_ = 0;
    std::uint32_t unused_ = 0, varying_ = 0; // values, a bit for each
    int high_ = 0, low_ = 0, code_ = 0; // the last step's place in the canonical order
    std::vector<std::uint32_t> of_class_; // which values have a class
    Walk walk_;
    Goal goal_ = Goal::between;
    int most_stores_ = 2;
    Kernels *found_ = nullptr;
};

} // namespace tilesmith
