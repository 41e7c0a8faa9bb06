// What can be made of which inputs, and how far it is from what may be stored: the graph of all steps that some values
// allow, looked at apart from any order and from how many values there are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tilesmith {

class Reach {
  public:
    using Node = std::uint16_t; // a kind of value
    static constexpr Node kNone = 0xffff;
    static constexpr int kGroups = 6; // of inputs; with more, the last group has all that are left
    static constexpr std::uint8_t kNever = 99;

    explicit Reach(std::size_t nodes);

    // How far a node that is made of some groups is from a store: the fewest steps, and the fewest that are no joins.
    struct Far {
        std::uint8_t steps = kNever, singles = kNever;
    };

    // Groups of inputs, of inputs.
    static constexpr std::uint32_t groups(std::uint32_t inputs) {
        constexpr std::uint32_t last = 1u << (kGroups - 1);
        return (inputs & (last - 1)) | (inputs >= last ? last : 0);
    }

    void clear(std::size_t inputs);
    void start(Node node, std::uint32_t input);
    // The next node that was reached and not looked at yet, or kNone.
    Node next() {
        if (next_ == touched_.size()) return kNone;
        seen_[touched_[next_]] = 1;
        return touched_[next_++];
    }
    bool seen(Node node) const { return seen_[node]; }
    // A step from one node, or two that were seen, to another.
    void lead(Node a, Node b, Node to) {
        touch(to);
        leads_.push_back({a, b, to});
    }
    // A node that may be stored.
    void end(Node node) { ends_.push_back(node); }

    // After all leads: how far everything is from a store. A store has all inputs, or with `pairs` two have them between
    // them, and one in common where `connected`. False where none can.
    bool settle(bool pairs, bool connected);

    Far far(Node node, std::uint32_t groups) const { return far_[at(node, groups)]; }
    // Of what a step from one node, or from two, makes.
    std::uint8_t steps(Node a, Node b, Node to) const;
    const std::vector<Node> &nodes() const { return touched_; }

  private:
    using Sets = std::uint64_t; // of sets of groups: a bit for each

    struct Lead {
        Node a, b, to;
    };

    static std::size_t at(Node node, std::uint32_t groups) { return (std::size_t{node} << kGroups) + groups; }
    static Sets joined(Sets a, Sets b);
    void touch(Node node) {
        if (touched_mark_[node]) return;
        touched_mark_[node] = 1;
        touched_.push_back(node);
    }
    bool find_ends(bool pairs, bool connected);
    bool relax(const Lead &lead, std::uint8_t round);

    std::uint32_t all_ = 0;
    std::vector<Sets> made_; // of what each node can be made
    std::vector<std::uint8_t> touched_mark_, seen_;
    std::vector<std::uint8_t> round_; // in which a node was last changed
    std::vector<Node> touched_, ends_;
    std::size_t next_ = 0;
    std::vector<Lead> leads_;
    std::vector<Far> far_;
};

} // namespace tilesmith
