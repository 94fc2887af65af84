"""How the faults by rule that survived their run were settled by hand, after it.

The results of ``SAMPLES`` have the verdicts of ``benchmarks.mutants_by_rule`` as they came out: a
survivor survived the tests asked within the limit of seconds. Each was planted again by hand. Here it
has the test that failed with it in place, one that the limit had left out or that was written since;
or the reason why nothing changes that anybody could observe or was promised. Where the code was
rewritten so that the fault is no longer possible, it has the test of what it does now.

When a sample is judged anew, the equivalent ones belong into ``_equivalent_faults.py``, and its
survivors here give way to the new ones.
"""

# ruff: noqa: E501 - the names of faults and of tests are as long as they are

SAMPLES = {0: "mutants-by-rule", 1: "mutants-by-rule-1"}
"""Names of the committed results, by the seed of the sample."""

SETTLED: dict[str, tuple[str, str]] = {
    "_geometry.py lp: junction: or -> and": (
        "test",
        "tests/test_geometry.py::test_a_count_is_no_norm",
    ),
    "_copies.py want_gradients_alike: sign: not is_lazy(ours) -> is_lazy(ours)": (
        "test",
        "tests/test_any_network.py::test_networks_that_deepcopy_refuses_are_copied_and_trained",
    ),
    "_model_kinds.py _remedy: reduction: all -> any": (
        "test",
        "tests/test_usual_mistakes.py::test_a_usual_mistake_gets_its_sentence",
    ),
    "_modes.py _any_backward: negation: (module := sys.modules.get(name)) is not None -> (not ((module := sys.modules.get(name)) is not None))": (
        "test",
        "tests/test_models.py::test_what_fabric_sets_up_is_attacked_in_its_precision",
    ),
    "_cli/_demo.py run: call: chosen.out.mkdir(parents=True, exist_ok=True) -> pass": (
        "test",
        "tests/test_examples.py::test_the_quickstart_writes_its_table_report_and_picture",
    ),
    "_cli/_demo.py _show: constant: 9 -> 8": (
        "equivalent",
        "the size of the print above a picture, which nobody is promised",
    ),
    "_cli/_model.py _from_file: junction: or -> and (2)": (
        "test",
        "tests/test_command_line.py::test_a_program_is_put_on_the_device_that_is_named_and_nothing_else_changes",
    ),
    "_cli/_model.py _from_file: context: with warnings.catch_warnings() -> if True": (
        "test",
        "tests/test_command_line.py::test_a_program_is_put_on_the_device_that_is_named_and_nothing_else_changes",
    ),
    "_data/_sources.py source_of: keyword: , shuffle=shuffle -> nothing": (
        "test",
        "tests/test_data.py::test_a_data_set_is_read_in_another_order_in_every_epoch",
    ),
    "_data/_arrays.py as_tensor: context: with one_at_a_time(), warnings.catch_warnings() -> if True": (
        "test",
        "tests/test_data.py::test_a_read_only_array_is_taken_without_a_word_and_without_a_copy",
    ),
    "attacks/_fab_targeted.py FastAdaptiveBoundary.done: comparison: >= -> >": (
        "test",
        "tests/test_fab.py::test_draws_one_gradient_a_step_once_it_is_across_the_boundary",
    ),
    "attacks/_sigma_zero.py SigmaZero.step: comparison: > -> >=": (
        "test",
        "tests/test_attacks_contract.py::test_a_tie_that_the_label_wins_is_no_success_of_a_minimum_distance_attack",
    ),
    "attacks/auto_pgd/_sparse.py SparseAutoPGD.ascend: bound: (state.support / SPARSER).clamp(min=1) -> state.support / SPARSER": (
        "equivalent",
        "a spread below 1 gives the step of a spread of 1: no coordinate takes more than what is left",
    ),
    "attacks/carlini_wagner/_multi_target.py MultiTargetDescent.searched: arithmetic: - -> + (5)": (
        "test",
        "tests/test_carlini_wagner.py::test_a_search_fares_the_same_in_other_units_and_mirrored",
    ),
    "attacks/carlini_wagner/_multi_target.py MultiTargetDescent.searched: sign: -limit -> limit": (
        "test",
        "tests/test_carlini_wagner.py::test_a_search_fares_the_same_in_other_units_and_mirrored",
    ),
    "attacks/carlini_wagner/_multi_target.py MultiTargetDescent.next_run: junction: and -> or": (
        "test",
        "tests/test_carlini_wagner.py::test_a_target_is_reached_between_two_rivals_that_face_each_other",
    ),
    "estimators/_onnx.py _check_same: junction: or -> and": (
        "test",
        "tests/test_onnx.py::test_a_graph_that_computes_something_else_is_not_left_behind",
    ),
    "estimators/_adversary.py AttackSettings.adversary: arithmetic: / -> *": (
        "test",
        "tests/test_robust.py::test_a_step_is_a_quarter_of_the_radius_if_none_is_given",
    ),
    "estimators/_adversary.py Adversary.__call__: context: with attack_mode(network, self.batch_statistics) -> if True": (
        "test",
        "tests/test_robust.py::test_training_attacks_the_network_in_the_mode_that_was_asked_for",
    ),
    "estimators/_onnx.py _check_same: bound: expected.abs() -> expected": (
        "test",
        "tests/test_onnx.py::test_the_rounding_of_large_logits_below_zero_is_none_of_the_graphs",
    ),
    "evaluation/_run.py Run.run_attack: arithmetic: & -> |": (
        "test",
        "tests/test_evaluation.py::test_labels_of_any_kind_are_looked_up_in_classes",
    ),
    "evaluation/_evaluate.py evaluate: comparison: == -> !=": (
        "test",
        "tests/test_evaluation.py::test_quick_attacks_shorten_the_diagnosis_that_nobody_asked_for_alone",
    ),
    "evaluation/_judge.py Witness.__call__: arithmetic: & -> | (2)": (
        "test",
        "tests/test_masking.py::test_an_attack_that_loses_what_it_found_is_noticed",
    ),
    "evaluation/_state_format.py top: constant: 1 -> 2 (2)": (
        "test",
        "tests/test_state.py::test_a_finished_state_gives_the_report_without_attacking_again",
    ),
    "evaluation/diagnosis/_rules_comparisons.py unbounded_attack_fails: junction: or -> and": (
        "test",
        "tests/test_masking.py::test_a_network_that_shows_it_raises_the_finding",
    ),
    "evaluation/diagnosis/_active.py hits: bound: x.clone() -> x": (
        "test",
        "tests/test_findings.py::test_an_attack_that_works_in_place_passes_the_test_like_one_that_does_not",
    ),
    "evaluation/diagnosis/_active.py seen_by_last_layer: context: with suppress(Exception) -> if True": (
        "test",
        "tests/test_masking.py::test_the_last_linear_layer_is_seen_with_what_it_takes_and_gives",
    ),
    "evaluation/diagnosis/_active.py Rewired.forward.read: branches: signs == 0, rest[:, None].to(lead), signs.to(lead) * lead... -> signs == 0, signs.to(lead) * lead[:, None], rest[:, None]...": (
        "test",
        "tests/test_findings.py::test_a_blind_attack_fails_its_own_test",
    ),
    "evaluation/diagnosis/_rules_model.py zero_gradients: arithmetic: / -> * (2)": (
        "test",
        "tests/test_masking.py::test_underflow_is_told_from_flatness",
    ),
    "evaluation/diagnosis/_columns.py observed: keyword: , probabilities=bool(run.model.takes_logarithm) -> nothing": (
        "test",
        "tests/test_masking.py::test_a_network_that_shows_it_raises_the_finding",
    ),
    "evaluation/diagnosis/_probes.py budgets: sign: ~narrow -> narrow": (
        "test",
        "tests/test_masking.py::test_what_withstands_a_wider_radius_differs_by_what_was_lost_and_won",
    ),
    "evaluation/report/_consistency.py _share: keyword: , abs_tol=1e-12 -> nothing": (
        "equivalent",
        "a report's shares are count / n itself, and equal what is computed from it",
    ),
    "evaluation/report/_consistency.py _threat_model: reduction: all -> any": (
        "test",
        "tests/test_report.py::test_a_report_of_figures_that_cannot_be_is_refused",
    ),
    'evaluation/report/_sentences.py blind_cross_entropy: returned: finding.code == "margin-beats-cross-entropy" -> not (finding.code == "margin-beats-cross-entropy")': (
        "test",
        "tests/test_masking.py::test_distilled_networks_raise_the_three_findings_and_others_none",
    ),
    "evaluation/report/_pictures.py scaled: bound: ((values.detach().cpu().float() - low) / (high - low)).cl... -> (values.detach().cpu().float() - low) / (high - low)": (
        "test",
        "tests/test_report.py::test_a_value_beyond_a_bound_is_shown_like_the_bound",
    ),
    "exercises/_defensive_distillation.py _settings: constant: 20.0 -> 40.0": (
        "equivalent",
        "the first settings to distil with: another temperature is as good a case",
    ),
    "exercises/_scaling_laws.py power_law: reduction: mean -> sum (2)": (
        "equivalent",
        "the other factor's deviations sum to 0, so that any constant may be taken from this one",
    ),
    "exercises/_scaling_laws.py _noisy: arithmetic: ** -> *": (
        "equivalent",
        "the points of a noisy law: another law is as good a case",
    ),
    "exercises/_search_and_saliency.py _brackets: junction: and -> or": (
        "test",
        "tests/test_exercises_answers.py::test_a_wrong_answer_fails_a_property_that_says_why",
    ),
    "exercises/_distillation.py _falls: bound: function(weight, inputs, soft_targets, t, rate).detach() -> function(weight, inputs, soft_targets, t, rate)": (
        "equivalent",
        "item() takes a loss with a graph as it takes one without",
    ),
    "exercises/_properties.py network: context: with torch.random.fork_rng(devices=[]) -> if True": (
        "test",
        "tests/test_exercises.py::test_the_import_of_the_exercises_draws_no_random_numbers",
    ),
    "exercises/_numbers.py _in_unit: constant: 1e-9 -> 2e-09 (2)": (
        "equivalent",
        "slack for rounding, of which twice as much is as good",
    ),
    "exercises/_properties.py differ: keyword: , rtol=tolerance -> nothing": (
        "test",
        "tests/test_exercises_answers.py::test_a_wrong_answer_fails_a_property_that_says_why",
    ),
    "exercises/_carlini_wagner.py top: arithmetic: + -> -": (
        "equivalent",
        "a target that is not the label: another one is as good a case",
    ),
    "exercises/_search_and_saliency.py _jacobians: sign: -1.0 -> 1.0 (2)": (
        "test",
        "tests/test_exercises_answers.py::test_a_wrong_answer_fails_a_property_that_says_why",
    ),
    "exercises/_swiss_cheese.py _few_alarms: comparison: <= -> <": (
        "equivalent",
        "a share of 9 or 99 examples is never exactly the slack above the rate",
    ),
    'exercises/_properties.py differ: ending: return f"got shape {tuple(found.shape)}, expected {tuple(... -> pass': (
        "test",
        "tests/test_exercises.py::test_an_answer_of_another_shape_is_told_both_shapes",
    ),
    "exercises/_properties.py differ: bound: torch.as_tensor(expected).detach() -> torch.as_tensor(expected)": (
        "equivalent",
        "allclose() and the message take a tensor with a graph as they take one without",
    ),
    "functional/_robust_distillation_losses.py ard_loss: ending: return soft -> pass": (
        "test",
        "tests/test_robust.py::test_at_alpha_1_ards_clean_logits_do_not_enter_whatever_they_are",
    ),
    'networks/_layers.py he_initialised: keyword: , nonlinearity="relu" -> nothing (2)': (
        "equivalent",
        "PyTorch's default, a leaky ReLU of slope 0, is a ReLU",
    ),
    "networks/_wrappers.py Normalized.__init__: reduction: any -> all": (
        "test",
        "tests/test_networks.py::test_a_normalisation_that_is_none_is_refused",
    ),
    "persistence/_networks.py no_larger_than.count: ending: return -> pass": (
        "test",
        "tests/test_persistence.py::test_what_other_threads_build_during_a_load_is_not_counted_as_the_saved_network",
    ),
    "persistence/_folder.py _locked: call: fcntl.flock(descriptor, fcntl.LOCK_UN) -> pass": (
        "test",
        "tests/test_persistence.py::test_a_process_forked_during_a_save_does_not_keep_others_out_after_it",
    ),
    "persistence/_folder.py _read_weights: constant: 6 -> 7": (
        "equivalent",
        "a bound of what is read, still a bound: a file of another size than was written is refused",
    ),
    "persistence/_answers.py _logits: context: with alone, borrowed(asked, seed, gradients=False), warni... -> if True": (
        "test",
        "tests/test_persistence.py::test_a_forked_process_saves_though_its_parent_has_used_threads",
    ),
    "scaling_laws/_fitting.py Problem.objective: ending: return 1e9, np.zeros_like(free) -> pass (2)": (
        "test",
        "tests/test_scaling_laws.py::test_the_objective_is_a_number_wherever_a_descent_may_step",
    ),
    "scaling_laws/_runs.py _columns: junction: and -> or": (
        "test",
        "tests/test_scaling_laws.py::test_other_bad_input_is_refused",
    ),
    'scaling_laws/_fitting.py Form.natural: context: with np.errstate(over="ignore") -> if True': (
        "test",
        "tests/test_scaling_laws.py::test_coefficients_of_any_size_survive_the_logarithms",
    ),
    'scaling_laws/_fitting.py fit_form: call: check_positive("flops_factor", settings["flops_factor"]) -> pass': (
        "equivalent",
        "the law refuses the factor too, in the same words, only after the fit",
    ),
    "scaling_laws/_fitting.py fit_form: arithmetic: * -> / (2)": (
        "test",
        "tests/test_scaling_laws.py::test_the_objective_is_the_mean_huber_loss_of_the_residuals",
    ),
    "testing/_parts.py dtype_and_device: constant: 1 -> 0": (
        "test",
        "tests/test_testing_defenses.py::test_a_fault_is_named_and_no_other",
    ),
    "testing/_slopes.py ways: reduction: zeros_like -> ones_like": (
        "test",
        "tests/test_testing_models.py::test_a_fault_is_named_and_no_other",
    ),
    "testing/_slopes.py live_coordinates: ending: return -> pass (2)": (
        "test",
        "tests/test_testing_models.py::test_a_sound_network_passes_in_training_mode_too",
    ),
    "testing/_learning.py seeds: context: with torch.random.fork_rng(devices=[]) -> if True": (
        "equivalent",
        "run() restores the generator after all checks, and this is the only way to a check",
    ),
    "testing/_subject.py ModelSubject.of: bound: examples.detach() -> examples": (
        "test",
        "tests/test_testing_models.py::test_inputs_that_carry_a_graph_are_examples_like_any",
    ),
    "testing/_slopes.py true_gradient: comparison: < -> <=": (
        "equivalent",
        "at just as many points as are enough, three times as many are asked: no other rule",
    ),
    "testing/_points.py returns: ending: return -> pass": (
        "equivalent",
        "run() reads the first broken promise of a check and no more",
    ),
    "testing/_classifier_subject.py drawn: reduction: zeros -> ones": (
        "equivalent",
        "shares() reads shape, dtype and device of this tensor, not its values",
    ),
    "testing/_slopes.py Lines.of: arithmetic: + -> - (2)": (
        "equivalent",
        "the offsets lie symmetrically about 0",
    ),
    "testing/_classifier_subject.py rows_apart: keyword: initial=0 -> nothing": (
        "equivalent",
        "the promise 'answers', tested before, refuses outputs without values",
    ),
    "training/_runtime.py Runtime.__init__: comparison: == -> !=": (
        "test",
        "tests/test_training.py::test_a_precision_is_that_of_weights_and_of_products",
    ),
}
"""By the fault's name: ("test", which one) or ("equivalent", why)."""
