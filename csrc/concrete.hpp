// The published search: every kernel, block and map with its numbers. Kept as the baseline of the symbolic space and as
// what is searched in parallel.
//
// A graph grows by predefined kernels and by graph-defined ones. A graph-defined kernel begins at a root: what it loads,
// its grid, which dimensions of every load the grid and the loop cut, and the range of the loop. Under each root the
// same block operators are tried. Nothing is grown that is no sub-expression of the target, which an oracle tells; a
// sum is known by its degree alone, so that a hit is a candidate until it is verified.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "control.hpp"
#include "oracle_degrees.hpp"
#include "oracle_expressions.hpp"
#include "oracle_z3.hpp"
#include "team.hpp"
#include "terms.hpp"
#include "track.hpp"
#include "wire.hpp"

namespace tilesmith::concrete {

inline constexpr int kTileRank = 4;
inline constexpr int kGridRank = 3;
inline constexpr int kMaxLoads = 6;
inline constexpr int kMaxTiles = 24;   // of a block
inline constexpr int kMaxTensors = 20; // of a graph
inline constexpr int kMaxNodes = 12;
inline constexpr int kMaxBlocks = 3;
inline constexpr int kMaxSaved = 2;
inline constexpr int kMaxDepth = 64;

struct Shape {
    std::array<std::int32_t, kTileRank> extents{};
    std::int32_t rank = 0;

    std::int32_t &last() { return extents[static_cast<std::size_t>(rank - 1)]; }
    std::int32_t last() const { return extents[static_cast<std::size_t>(rank - 1)]; }
    std::int64_t elements() const;
    auto operator<=>(const Shape &) const = default;
};

// The root of a mean of squares: a chain of functions with a sum over the last dimension, of this extent, among them.
struct Norm {
    std::int32_t extent = 0;
    std::vector<int> root; // functions of the table
};

struct Problem {
    DegreeProgram degrees;
    std::vector<std::string> names; // of functions, for oracles that read
    std::vector<Shape> inputs;      // as many as the program has
    std::vector<Shape> outputs;
    std::vector<int> unary;         // functions that are operators
    std::vector<Norm> norms;
    bool transposes = false;        // whether matmul may take its second operand transposed
    bool subtracts = false;
    std::int32_t element_bytes = 2;
};

struct Rules {
    // As the published code has them, not the paper: its order of operators, which loses graphs; no operator joins what
    // comes after the loop with what does not vary; no sums but in accumulators; a kernel loads the last two tensors, or
    // all three; the oracle is asked before shapes are looked at.
    bool as_coded = false;
    bool bounded = false;            // cuts where more values are unused than what is left could join; nothing is lost
    bool heads = false;              // grids of a batch and a second dimension
    std::vector<std::int32_t> tiles{8, 16, 32, 64, 128, 256}; // a grid leaves that much of some dimension
    std::vector<std::int32_t> loops{4, 16, 64};
    std::int64_t least_blocks = 32, most_blocks = 4096;
    int kernel_ops = 3;  // kernels of a graph; as published, inputs count among 5
    int block_ops = 9;   // loads, operators and accumulators
    int graph_defined = 1;
    int loads = 3, stores = 2;
    std::int64_t shared_bytes = 96 << 10;
    int oracle_every = 1; // asks for each that many levels of a block or of the kernels
};

enum class Kind : std::uint8_t {
    matmul,
    matmul_transposed, // of its second operand
    add,
    sub,
    mul,
    div,
    apply,           // function `arg`
    norm,            // rms_norm `arg` over the last dimension
    sum,             // over dimension `arg`
    accumulate,
    accumulate_sum,  // and over the last dimension
    accumulate_root, // the root of norm `arg`, over the loop and the last dimension
};

struct Step {
    static constexpr std::uint8_t kNone = 0xff;
    Kind kind{};
    std::uint8_t arg = 0;
    std::uint8_t a = 0, b = kNone;

    auto operator<=>(const Step &) const = default;
};

struct Operator {
    Kind kind{};
    std::uint8_t arg = 0;

    bool binary() const { return kind <= Kind::div; }
    bool commutes() const { return kind == Kind::add || kind == Kind::mul; }
    bool accumulates() const { return kind >= Kind::accumulate; }
};

// How a kernel is cut.
struct Setting {
    std::array<std::int32_t, kGridRank> grid{1, 1, 1};
    std::int32_t loop = 1;
    std::array<std::array<std::int8_t, kGridRank>, kMaxLoads> imaps{}; // -1: whole
    std::array<std::int8_t, kMaxLoads> fmaps{};
};

struct Block {
    Setting setting;
    std::uint8_t loads = 0, steps = 0, stores = 0;
    std::array<std::uint8_t, kMaxLoads> sources{}; // tensors of the graph
    std::array<Step, kMaxTiles> body{};
    std::array<std::uint8_t, kMaxSaved> stored{};
    std::array<std::int8_t, kGridRank> omap{};
};

struct Found {
    std::vector<Step> nodes;   // a block where the kind is kBlock: `arg` is its place
    std::vector<Block> blocks;
    std::vector<std::uint8_t> outputs; // tensors of the graph, in the order of the targets
};
inline constexpr auto kBlock = static_cast<Kind>(0xff);

enum class Asked : std::uint8_t { table, z3 };
enum class Cache : std::uint8_t { none, thread, shared };

struct Counts {
    std::uint64_t states = 0;
    std::uint64_t candidates = 0;
    std::uint64_t tested = 0; // graphs with as many results as the target
    std::uint64_t shape = 0;  // extents do not fit
    std::uint64_t phase = 0;  // joins the loop with what comes after it, or gathers what does not vary
    std::uint64_t memory = 0; // shared memory
    std::uint64_t oracle = 0; // no part of the target
    std::uint64_t bound = 0;  // too few operators are left to use everything
    std::uint64_t unsound = 0; // hits that gather what does not vary: an iteration too often
    std::uint64_t roots = 0, unfit_roots = 0;
    std::uint64_t frontier = 0; // the most states that waited at once
    std::array<std::uint64_t, kMaxDepth> depths{}; // states, by how many steps led to them

    // Of an oracle that reads.
    std::uint64_t calls = 0, hits = 0, unknown = 0;
    std::uint64_t only_oracle = 0; // accepted by it and not by the table
    std::uint64_t only_table = 0;
    double lock_s = 0; // of what it waited: for shared answers, or for their lock

    std::uint64_t given = 0, taken = 0; // open work: to others, and theirs
    Times times;
    double cpu_s = 0;
    double first_s = 0; // when the first graph was found; 0 where there is none

    void operator+=(const Counts &other);
};

// Answers that threads share. The same is asked once: who needs it meanwhile waits, where the published search asks again.
class SharedAnswers {
  public:
    // None where nobody knows: then it is the caller's to `put`, whatever happens. Seconds waited are added to `lock_s`.
    std::optional<bool> find(const std::string &formula, Track &track, double &lock_s);
    void put(const std::string &formula, bool answer, Track &track, double &lock_s);

  private:
    enum class Known : std::uint8_t { asked, no, yes };

    std::shared_mutex mutex_;
    std::condition_variable_any answered_;
    std::unordered_map<std::string, Known> answers_;
};

// How the oracle is asked.
struct Asking {
    Asked oracle = Asked::table;
    Cache cache = Cache::thread;
    std::shared_ptr<const Z3> z3;
    unsigned effort = 80'000;
};

// Everything before the first graph-defined kernel of a graph, and that kernel's settings. Read-only once made.
class Space {
  public:
    // Raises std::invalid_argument for a problem that is none, or limits that states have no room for.
    Space(Problem problem, Rules rules, const TableLimits &limits);

    const Problem &problem() const { return problem_; }
    const Rules &rules() const { return rules_; }
    const DegreeTable &table() const { return table_; }
    Class target(std::size_t i) const { return table_.table().outputs[i]; }

    // What a block may load, by the shapes.
    const std::vector<Setting> &settings(const std::vector<Shape> &shapes) const;
    Class root_of(const Norm &norm, Class c) const {
        for (const int function : norm.root) c = table_.apply(c, function);
        return c;
    }
    std::uint64_t unfit() const { return unfit_; }

    // In the order of their codes; those that only blocks have come last.
    std::span<const Operator> operators(bool block) const {
        return std::span(operators_).first(block ? operators_.size() : kernel_operators_);
    }

    std::size_t unary_operators(bool block) const { return operators(block).size() - binary_operators_; }
    std::size_t binary_operators() const { return binary_operators_; } // they have the lowest codes

    // Which operators the table may allow, a bit for each code: of a value, and of two in this order. Where there are
    // too many classes to keep that, any.
    std::uint64_t possible(Class c) const { return possible_.empty() ? ~std::uint64_t{0} : possible_[c]; }
    std::uint8_t possible(Class a, Class b) const {
        return joins_.empty() ? std::uint8_t{0xff} : joins_[a * table_.table().classes() + b];
    }

    const Theory &theory() const { return theory_; }

  private:
    void list_operators();
    void list_possible();
    std::vector<Setting> enumerate(const std::vector<Shape> &shapes) const;

    Problem problem_;
    Rules rules_;
    DegreeTable table_;
    Theory theory_;
    std::vector<Operator> operators_;
    std::size_t kernel_operators_ = 0, binary_operators_ = 0;
    std::vector<std::uint64_t> possible_;
    std::vector<std::uint8_t> joins_;
    mutable std::mutex mutex_;
    mutable std::map<std::vector<Shape>, std::unique_ptr<const std::vector<Setting>>> settings_;
    mutable std::uint64_t unfit_ = 0;
};

// A value of the graph or of a block.
struct Value {
    Shape shape;
    Expression expression = kNoExpression;
    Class cls = kNoClass;
    std::uint8_t phase = 0;
    std::uint8_t uses = 0;
};

using Key = std::uint64_t; // an operator's place in the order

struct KernelState {
    std::array<Value, kMaxTensors> tensors{};
    std::array<Step, kMaxNodes> nodes{};
    Key last = 0;
    std::uint8_t count = 0, made = 0;
};

struct BlockState {
    std::array<Value, kMaxTiles> tiles{};
    Key last = 0;
    std::int64_t bytes = 0;
    std::uint8_t count = 0;
};

struct State {
    KernelState graph;
    BlockState block;
    std::array<Block, kMaxBlocks> blocks{};
    std::uint8_t defined = 0; // blocks that are finished
    bool inside = false;      // of the next one
    std::uint8_t unsound = 0; // accumulators of what does not vary
};

// States that wait, first come, first served; each is kept as what sets it apart from a base that all share.
class Frontier {
  public:
    explicit Frontier(const State &base) : base_(base) {}

    const State &base() const { return base_; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return bytes_; }
    void push(const State &state);
    // The first one: what it had, and anything where it had nothing. There must be one.
    void read(State &state) const;
    // The same, and it waits no longer; whether there was one. Memory is given back as it goes.
    bool pop(State &state);
    // The last ones, half of all at the most.
    Frontier split();

    // As bytes, for processes of one machine type.
    void write(tilesmith::Writer &writer) const;
    static Frontier read(tilesmith::Reader &reader);

  private:
    struct Chunk {
        std::unique_ptr<std::byte[]> bytes;
        std::size_t begin, end, count;

        std::size_t next(std::size_t from) const;
    };

    State base_;
    std::deque<Chunk> chunks_;
    std::size_t size_ = 0, bytes_ = 0;
};

class Roots;
class Pool;

// What a worker can do by itself: a whole root, or states under it that another worker left to it.
struct Task {
    std::size_t root = 0;
    std::optional<Frontier> open;
    std::pair<int, int> depth;   // of the open states: blocks that are finished, steps of the next one
    Expressions expressions{{}}; // of those states, where the oracle reads
};

// Searches roots, one at a time. Each thread has its own.
class Worker {
  public:
    // With a pool it leaves open work to those that have none.
    Worker(const Roots &roots, const Asking &asking, SharedAnswers *shared, Control &control, bool timeline = false,
           Pool *pool = nullptr);

    // Everything under a root, in an order that depends on nothing else. `frontier_bytes` bounds what breadth-first
    // search keeps; what does not fit is searched depth-first.
    std::vector<Found> search_root(std::size_t index, Order order, std::size_t frontier_bytes = 64 << 20);

    // The same of a task; what is left to others is missing.
    std::vector<Found> search(Task task, Order order, std::size_t frontier_bytes);

    // What it did since it began.
    Counts counted() {
        counts_.times += track_.take();
        return counts_;
    }
    Track &track() { return track_; }

  private:
    friend class Roots;
    using Sources = std::vector<std::uint8_t>; // of a block: tensors of the graph
    using Gather = std::function<void(const std::vector<Sources> &)>;
    enum class Cause : std::uint8_t { good, shape, phase, memory };

    Worker(const Space &space, const Asking &asking, SharedAnswers *shared, Control &control, bool timeline);

    void begin(const KernelState &graph);
    void depth_first();
    void breadth_first(Frontier level, std::size_t most_bytes);
    bool leaves();
    bool leave_half(Frontier &level);
    void leave(Frontier open);
    bool arrive();
    template <typename Visit> void expand(const Visit &visit);
    template <typename Visit> void add_operators(const Visit &visit);
    template <typename Visit> void attempt_all(std::uint64_t codes, std::size_t count, int a, int b, const Visit &visit);
    template <typename Visit> void attempt(std::size_t code, std::uint8_t a, std::uint8_t b, const Visit &visit);
    template <typename Visit> void begin_blocks(const Visit &visit);
    template <typename Visit> void finish_block(const Visit &visit);
    template <typename Visit> void store(std::span<const std::uint8_t> stored, const Visit &visit);
    std::vector<Sources> subsets() const;

    bool enter(std::span<const std::uint8_t> sources, const Setting &setting);
    void leave();
    Key key(const Operator &op, std::size_t code, std::uint8_t a, std::uint8_t b) const;
    Key key(std::span<const std::uint8_t> sources) const;
    Cause fits(const Operator &op, const Value &x, const Value *y, Value &made, std::int64_t &bytes) const;
    Cause phased(const Operator &op, const Value &x, const Value *y, Value &made) const;
    bool accepted(const Operator &op, const Value &x, const Value *y, Value &made);
    bool ask(Expression e);
    bool solve(Expression e);
    Class class_of(const Operator &op, const Value &x, const Value *y) const;
    Expression expression_of(const Operator &op, const Value &x, const Value *y);
    Expression root_of(const Norm &norm, Expression e);
    Expression applied(int function, Expression e);
    std::size_t depth() const;
    bool usable() const;
    bool complete(std::vector<std::uint8_t> &outputs);
    void record(const std::vector<std::uint8_t> &outputs);
    const Setting &setting() const { return state_.blocks[state_.defined].setting; }

    const Space &space_;
    const Rules &rules_;
    const Roots *roots_ = nullptr;
    Asking asking_;
    SharedAnswers *shared_;
    Control &control_;
    Counts counts_;
    Track track_;
    std::unique_ptr<Z3Oracle> z3_;
    Expressions expressions_;
    FlatMap<bool> answers_;
    std::uint64_t commuting_ = 0; // codes of operators
    State state_;
    std::vector<Found> found_;
    const Gather *gather_ = nullptr; // instead of searching blocks
    Pool *pool_ = nullptr;
    std::size_t root_ = 0;
};

// What can be dealt out: every root is searched by itself.
class Roots {
  public:
    // The oracle of the roots is the table, whatever that of the search.
    Roots(const Space &space, Control &control);

    const Space &space() const { return space_; }
    std::size_t size() const { return groups_.empty() ? 0 : groups_.back().end; }
    // Graphs of predefined kernels alone.
    const std::vector<Found> &predefined() const { return predefined_; }
    const Counts &counts() const { return counts_; }

    struct Root {
        const KernelState &prefix;
        std::span<const std::uint8_t> sources;
        const Setting &setting;
    };
    Root root(std::size_t index) const;

  private:
    struct Group {
        std::size_t end; // of its roots; they begin where those of the group before it end
        std::size_t prefix;
        std::vector<std::uint8_t> sources;
        const std::vector<Setting> *settings;
    };

    const Space &space_;
    std::vector<KernelState> prefixes_;
    std::vector<Group> groups_;
    std::vector<Found> predefined_;
    Counts counts_;
};

// Open work of threads that share memory: roots, pulled one after another, and what working threads leave to idle ones.
class Pool {
  public:
    // Where it is `fed` from elsewhere, under that control, it ends once it is closed.
    explicit Pool(std::size_t roots, Control *fed = nullptr) : roots_(roots), fed_(fed) {}

    // Before a worker takes anything.
    void enter();

    // Whether a worker is idle and nothing is left for it.
    bool hungry() const { return hungry_.load(std::memory_order_relaxed) > 0; }
    void leave(Task task);
    // The next task; none once nobody can leave any more. Waits.
    std::optional<Task> take(Track &track);

    // For another process: only what no worker waits for. Otherwise the workers are asked for more.
    std::optional<Task> lend();
    void close();
    std::size_t size();
    // Whether nobody works, and nothing is left.
    bool idle();

  private:
    void count() { hungry_.store(static_cast<int>(idle_ + abroad_) - static_cast<int>(left_.size()), std::memory_order_relaxed); }
    Task shallowest();

    const std::size_t roots_;
    Control *fed_;
    std::atomic<std::size_t> ticket_{0};
    alignas(64) std::atomic<int> hungry_{0};
    alignas(64) std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Task> left_;
    std::size_t working_ = 0, idle_ = 0, abroad_ = 0;
};

// What several threads found and did.
struct Share {
    std::vector<std::pair<std::size_t, Found>> found; // by root, in an order that no schedule changes
    std::vector<Counts> counts;                       // by worker
};

// In an order that depends on nothing but what was found.
std::vector<std::pair<std::size_t, Found>> ordered(std::vector<std::vector<std::pair<std::size_t, Found>>> each);

// Everything under all roots: dealt out interleaved over threads, as published, or pulled, and idle threads take open work
// from others. With a limit of graphs it stops at so many, or a few more.
Share share_out(const Roots &roots, const Asking &asking, SharedAnswers &shared, Control &control, const Team &team);

} // namespace tilesmith::concrete
