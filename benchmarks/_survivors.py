"""How the faults by rule that survived their run were settled by hand, after it.

The results of ``SAMPLES`` have the verdicts of ``benchmarks.mutants_by_rule`` as they came out: a
survivor survived the tests asked within the limit of seconds. Each was planted again by hand. Here it
has the test that failed with it in place, one that the limit had left out or that was written since;
or the reason why nothing changes that anybody could observe or was promised; or how the code was
simplified since, so that the fault is no longer possible.

When a sample is judged anew, the equivalent ones belong into ``_equivalent_faults.py``, and its
survivors here give way to the new ones.
"""

# ruff: noqa: E501 - the names of faults and of tests are as long as they are

SAMPLES = {
    0: "mutants-by-rule",
    1: "mutants-by-rule-1",
    2: "mutants-by-rule-2",
    3: "mutants-by-rule-3",
}
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
    "_files.py check_writable: context: with _naming(path) -> if True": (
        "test",
        "tests/test_state.py::test_a_place_that_cannot_be_written_is_told_by_the_file_that_was_asked_for",
    ),
    "_copies.py want_gradients_alike: junction: and -> or": (
        "gone",
        "every parameter is set, whatever it was, and there is no second condition",
    ),
    "_geometry.py _l1_sample: branches: drawn[:, dimension + 1 :] < 0.5, -1.0, 1.0 -> drawn[:, dimension + 1 :] < 0.5, 1.0, -1.0": (
        "equivalent",
        "a sign of each with probability one half: the mirror image is as likely",
    ),
    "_random.py top: constant: 24 -> 48": (
        "test",
        "tests/test_random.py::test_the_largest_uniform_number_is_the_last_below_one",
    ),
    "_model_kinds.py _builds_a_module: ending: return False -> pass": (
        "gone",
        "methods and cached functions are asked what they return, as functions are",
    ),
    '_cli/_demo.py draw: call: _show(axis, image, f"{prediction}\\nL2 {distance:.2f}") -> pass': (
        "test",
        "tests/test_examples.py::test_the_quickstart_writes_its_table_report_and_picture",
    ),
    "_data/_open.py _in_memory: constant: 1 -> 2 (2)": (
        "test",
        "tests/test_usual_mistakes.py::test_a_usual_mistake_gets_its_sentence",
    ),
    "_data/_spec.py _are_beyond: reduction: max -> min (2)": (
        "test",
        "tests/test_evaluation.py::test_bytes_within_the_bounds_of_their_own_channel_are_inputs_like_any",
    ),
    "adaptive/_surrogate.py distil_surrogate.learn: reduction: argmax -> argmin": (
        "equivalent",
        "the labels serve an accuracy in the student's history, which nobody is given; it learns from the answers",
    ),
    "adaptive/_surrogate.py distil_surrogate: keyword: , rejects=rejects(model) -> nothing": (
        "test",
        "tests/test_rejection.py::test_a_student_of_a_model_that_rejects_has_its_last_column_for_rejection",
    ),
    "adaptive/_gradient_from.py GradientFrom.forward: bound: inputs.detach().clone() -> inputs.detach()": (
        "test",
        "tests/test_adaptive.py::test_a_model_that_writes_into_its_input_leaves_it_to_the_student_as_it_was",
    ),
    "adaptive/_before.py StraightThroughBefore.forward: ending: return self.model(inputs) -> pass": (
        "gone",
        "a question without a gradient is asked in the same way as one with it",
    ),
    "adaptive/_straight_through.py called: negation: isinstance(target, nn.Module) -> (not (isinstance(target, nn.Module)))": (
        "test",
        "tests/test_adaptive.py::test_reports_call_a_function_by_its_name_and_a_module_by_its_class",
    ),
    "attacks/_fab_targeted.py FastAdaptiveBoundary._linearised_step: bound: high.abs() -> high": (
        "equivalent",
        "where high is below 0, low is further from 0 still, and the larger of both is the same",
    ),
    "attacks/_deepfool.py DeepFool.start: reduction: zeros_like -> ones_like (2)": (
        "equivalent",
        "the first step writes it before anybody reads it",
    ),
    "attacks/_checks.py sounded: bound: x.clamp(lowest + 0.2 * (highest - lowest), highest - 0.1 ... -> x": (
        "test",
        "tests/test_any_model.py::test_gradients_are_compared_at_both_bounds_and_inside_whatever_the_images",
    ),
    "attacks/_square.py stripes: comparison: < -> <=": (
        "equivalent",
        "one number in 2^24 gets the other of two signs that are as likely",
    ),
    "attacks/auto_pgd/_targeted.py TargetedAutoPGD.start: constant: 1 -> 2 (2)": (
        "equivalent",
        "any number beyond the last step says that the run before the first is over",
    ),
    "attacks/auto_pgd/_targeted.py TargetedAutoPGD.step: ending: return move(model, state) -> pass": (
        "equivalent",
        "what follows takes all rows out and puts them back: the same values by way of a copy",
    ),
    "attacks/carlini_wagner/_l0.py SparseDescent.descended: branches: reached, THRESHOLD_CHANGE, -THRESHOLD_CHANGE -> reached, -THRESHOLD_CHANGE, THRESHOLD_CHANGE": (
        "test",
        "tests/test_carlini_wagner.py::test_l0_changes_no_more_of_a_digit_than_a_like_descent_in_as_few_steps",
    ),
    "attacks/carlini_wagner/_multi_target.py MultiTargetDescent.searched: ending: return state -> pass": (
        "equivalent",
        "what follows changes the examples that search, of which there are none",
    ),
    "attacks/carlini_wagner/_l0.py SparseDescent.step: arithmetic: & -> | (3)": (
        "test",
        "tests/test_carlini_wagner.py::test_l0_changes_no_more_of_a_digit_than_a_like_descent_in_as_few_steps",
    ),
    "datasets/_image_files.py read_cifar10_binary: constant: 1 -> 2 (2)": (
        "equivalent",
        "NumPy takes any negative size for the one that follows from the others",
    ),
    "defenses/_network.py LayeredNetwork.alarm: reduction: new_zeros -> new_ones": (
        "equivalent",
        "each row is written by the detector that is first there",
    ),
    "defenses/_layer.py Layer.forward: context: with torch.set_grad_enabled(torch.is_grad_enabled() and n... -> if True": (
        "test",
        "tests/test_defenses.py::test_a_layer_whose_way_back_is_the_identity_may_compute_in_numpy",
    ),
    "estimators/_settings.py TrainingSettings.__post_init__: constant: 1 -> 0 (2)": (
        "test",
        "tests/test_distiller.py::test_wrong_parameters_are_refused_with_the_rule_and_the_value",
    ),
    "estimators/_calibration.py calibrate_offset: bound: last.abs() -> last": (
        "equivalent",
        "a hair above any rounding of a lead above 0, whose larger part is best.abs() or last itself",
    ),
    "evaluation/_layer_by_layer.py _Trial.in_stages: ending: break -> pass": (
        "test",
        "tests/test_layer_by_layer.py::test_the_whole_is_not_asked_about_examples_of_which_none_are_left",
    ),
    "evaluation/_state_format.py _check_kept: sign: -1 -> 1 (2)": (
        "equivalent",
        "a key without an axis is refused a few lines later, where every column is",
    ),
    "evaluation/_curves.py Search.distances: bound: inputs.clone() -> inputs": (
        "test",
        "tests/test_curves.py::test_attacks_that_work_in_place_are_measured_like_those_that_do_not",
    ),
    "evaluation/_adapted_forms.py labelled: keyword: dim=1 -> nothing": (
        "equivalent",
        "PyTorch sorts the last axis by default, and logits have two",
    ),
    "evaluation/_transfer.py Trial.correct: call: check_label_range(labels, n_classes_of(model, logits)) -> pass": (
        "test",
        "tests/test_attack_arguments.py::test_a_mistake_in_curves_histograms_and_transfer_gets_its_sentence",
    ),
    "evaluation/_layer_report.py LayerReport._rows: reduction: sum -> mean": (
        "test",
        "tests/test_layer_by_layer.py::test_shares_print_with_their_wilson_intervals",
    ),
    "evaluation/_transfer.py Trial.correct: context: with noted(f\"in transfer_matrix's clean pass through {nam... -> if True": (
        "test",
        "tests/test_attack_arguments.py::test_an_error_in_the_clean_pass_of_a_matrix_names_the_model",
    ),
    "evaluation/diagnosis/_diagnose.py convergence: negation: probe.anywhere(~most) and probe.anywhere(fell) -> (not (probe.anywhere(~most) and probe.anywhere(fell)))": (
        "test",
        "tests/test_masking.py::test_once_something_fell_the_longer_attack_goes_on_to_all_that_is_left",
    ),
    "evaluation/diagnosis/_diagnose.py doubtful: comparison: > -> >=": (
        "equivalent",
        "where nothing was compared among the first examples, there are no others",
    ),
    "evaluation/diagnosis/_gradients.py at_bounds: sign: ~outer.isfinite() -> outer.isfinite()": (
        "test",
        "tests/test_findings.py::test_gradients_that_a_bound_leaves_as_they_are_are_not_counted_as_lost",
    ),
    "evaluation/diagnosis/_active.py active_test: junction: and -> or (2)": (
        "test",
        "tests/test_findings.py::test_sound_attacks_pass_their_own_test",
    ),
    "evaluation/diagnosis/_probes.py noise: bound: inputs.clone() -> inputs": (
        "equivalent",
        "it is given a copy, and a point of the ball fools at whatever distance",
    ),
    "evaluation/diagnosis/_diagnose.py within_budget: reduction: any -> all": (
        "test",
        "tests/test_findings.py::test_what_is_lost_outside_the_ball_is_not_called_a_weak_attack",
    ),
    "evaluation/diagnosis/_probe.py Probe.once: call: self.run.progress.tell(name) -> pass": (
        "test",
        "tests/test_findings.py::test_the_progress_bar_is_full_when_all_is_done_and_not_before",
    ),
    "evaluation/diagnosis/_rules_model.py zero_gradients: arithmetic: / -> * (6)": (
        "test",
        "tests/test_masking.py::test_underflow_is_told_from_flatness",
    ),
    "evaluation/report/_report.py RobustnessReport: constant: False -> True": (
        "test",
        "tests/test_report.py::test_the_repr_of_a_report_has_nothing_that_is_as_long_as_the_data",
    ),
    "evaluation/report/_report.py RobustnessReport: keyword: repr=False -> nothing": (
        "test",
        "tests/test_report.py::test_the_repr_of_a_report_has_nothing_that_is_as_long_as_the_data",
    ),
    "evaluation/_adapted_forms.py labelled: arithmetic: / -> * (3)": (
        "test",
        "tests/test_adaptation.py::test_a_model_that_tells_the_class_alone_is_searched_by_labels_before_a_student",
    ),
    "evaluation/_evaluate.py as_bounds: bound: torch.as_tensor(high).detach() -> torch.as_tensor(high)": (
        "equivalent",
        "attacks of this package alone are given the bounds, and they detach what they ask and return",
    ),
    "evaluation/report/_consistency.py _classes: junction: and -> or": (
        "test",
        "tests/test_report.py::test_a_report_of_classes_that_cannot_be_is_refused_though_they_add_up",
    ),
    "evaluation/report/_notes.py adapted: call: lines.append( f\"Queried in place of the model: {'; '.join... -> pass": (
        "test",
        "tests/test_adaptive_evaluation.py::test_a_stand_in_of_ours_is_seen_wherever_it_is_asked",
    ),
    "evaluation/report/_schema.py _has_default: returned: part.default is not MISSING or part.default_factory is no... -> not (part.default is not MISSING or part.default_factory ...": (
        "test",
        "tests/test_report.py::test_a_report_saved_by_an_earlier_version_is_read_compared_and_judged_again",
    ),
    "exercises/_adapted_gradients.py straight_through: bound: (function(inputs) - inputs).detach() -> function(inputs) - inputs": (
        "test",
        "tests/test_exercises.py::test_a_task_is_whole_and_its_solution_passes_from_its_text_alone",
    ),
    "exercises/_defensive_distillation.py _share_cases: constant: 1.0 -> 2.0 (5)": (
        "equivalent",
        "a network of two classes to count on: another slope is as good a case",
    ),
    "exercises/_task.py _last_line: junction: or -> and": (
        "test",
        "tests/test_exercises.py::test_an_answer_that_raises_is_told_the_last_line_of_its_error",
    ),
    'exercises/_search_and_saliency.py _calls: ending: return f"it asked {len(asked)} times" -> pass': (
        "test",
        "tests/test_exercises_answers.py::test_a_wrong_answer_fails_a_property_that_says_why",
    ),
    "exercises/_defensive_distillation.py soft_labels: context: with torch.no_grad() -> if True": (
        "test",
        "tests/test_exercises.py::test_a_task_is_whole_and_its_solution_passes_from_its_text_alone",
    ),
    "exercises/_scaling_laws.py _budgets: constant: 0.5 -> 1.0 (5)": (
        "equivalent",
        "the coefficients of a law: another law is as good a case",
    ),
    "exercises/_scaling_laws.py _budgets: constant: 0.5 -> 0.25 (5)": (
        "equivalent",
        "the coefficients of a law: another law is as good a case",
    ),
    "exercises/_robust_training.py _never_below: comparison: >= -> >": (
        "equivalent",
        "slack for rounding, which no loss exceeds by exactly this much",
    ),
    "exercises/_adapted_gradients.py _identity_slope: bound: inputs.clone() -> inputs": (
        "equivalent",
        "the cases of a property are made anew for each answer, and nobody else has the tensor",
    ),
    'exercises/_task.py Task.__post_init__: call: object.__setattr__(self, "statement", " ".join(self.state... -> pass': (
        "test",
        "tests/test_exercises.py::test_a_task_is_whole_and_its_solution_passes_from_its_text_alone",
    ),
    "exercises/_properties.py differ: junction: or -> and": (
        "test",
        "tests/test_exercises.py::test_an_answer_that_is_no_pair_where_one_is_due_is_told_so",
    ),
    "functional/_robust_losses.py smoothed_cross_entropy: constant: 0 -> 1": (
        "test",
        "tests/test_robust.py::test_label_smoothing_is_torchs",
    ),
    'functional/_robust_losses.py mart_loss: call: check_not_negative("beta", beta) -> pass': (
        "test",
        "tests/test_robust.py::test_numbers_out_of_range_are_refused",
    ),
    "networks/_wrappers.py _statistic: bound: torch.as_tensor(values, dtype=torch.float64).detach() -> torch.as_tensor(values, dtype=torch.float64)": (
        "test",
        "tests/test_networks.py::test_statistics_that_want_a_gradient_are_numbers_like_any",
    ),
    "persistence/_answers.py check_answers: constant: 0 -> 1": (
        "equivalent",
        "a network that answers otherwise under another seed has no answers in its save",
    ),
    "persistence/_manifest.py _plain: reduction: all -> any": (
        "test",
        "tests/test_persistence.py::test_a_mapping_is_saved_with_names_for_keys_and_else_not_at_all",
    ),
    "scaling_laws/_displays.py _Display.from_fit: keyword: , name=name -> nothing": (
        "test",
        "tests/test_scaling_laws.py::test_displays_draw_the_laws_answers_with_bands_and_runs",
    ),
    'scaling_laws/_envelope.py EnvelopeLaw.fit: call: check_positive("flops_factor", flops_factor) -> pass': (
        "test",
        "tests/test_scaling_laws.py::test_an_envelope_of_no_compute_is_refused",
    ),
    "testing/_answers.py plain_points: constant: 2 -> 1": (
        "test",
        "tests/test_testing_models.py::test_a_network_is_asked_within_the_bounds_alone",
    ),
    "testing/_slopes.py true_gradient: comparison: <= -> <": (
        "equivalent",
        "no difference of two slopes above rounding is exactly this share of the larger",
    ),
    "testing/_parts.py of_model.found: negation: subject.detects -> (not (subject.detects))": (
        "test",
        "tests/test_testing_defenses.py::test_a_fault_is_named_and_no_other",
    ),
    "testing/_learning.py inputs_kept: keyword: axis=1 -> nothing": (
        "test",
        "tests/test_testing_classifiers.py::test_the_rows_that_were_written_into_are_counted_and_shown",
    ),
    "testing/_attack_subject.py examples: bound: images[1].round() -> images[1]": (
        "test",
        "tests/test_testing_attacks.py::test_an_attack_is_asked_about_grey_black_and_white_images_and_black_and_white_pixels",
    ),
    "testing/_points.py batch_independence: ending: return -> pass (2)": (
        "equivalent",
        "run() reads the first broken promise of a check and no more",
    ),
    "training/_loop.py _Totals.add: constant: 0 -> 1": (
        "test",
        "tests/test_processes.py::test_an_example_without_weight_counts_for_no_figure_of_an_epoch",
    ),
    "training/_runtime.py _quiet: call: logger.setLevel(logging.ERROR) -> pass": (
        "test",
        "tests/test_training.py::test_fabrics_log_and_warnings_are_silent_while_it_is_set_up",
    ),
    "training/_average.py Average.update: bound: parameter.detach() -> parameter": (
        "gone",
        "the parameters themselves are read, as no gradient is recorded there",
    ),
    "training/_scaled_head.py _multiplies: context: with torch.no_grad() -> if True": (
        "gone",
        "the only caller records no gradients already",
    ),
    "training/_loop.py _Stage.trained: keyword: set_to_none=True -> nothing": (
        "gone",
        "it is what PyTorch does by default, and is no longer written",
    ),
    "training/_layout.py _there_and_back: bound: logits.detach() -> logits": (
        "equivalent",
        "both answers are compared and dropped, and the graph of each is spent",
    ),
    "_bar.py NoBar.set_description: constant: True -> False": (
        "gone",
        "whoever tells a bar says whether to refresh it, and the default is no longer written",
    ),
    "_modes.py _refused_by_cudnn: reduction: any -> all": (
        "equivalent",
        "cuDNN takes no layer whose parameters lie on several devices, and each has some",
    ),
    "_l1.py _level: bound: level.clamp(min=0) -> level": (
        "gone",
        "the level is above 0 wherever it is taken, and nothing is clamped",
    ),
    "_data/_sources.py _in_memory: constant: 1 -> 2": (
        "equivalent",
        "where there are no labels nobody reads the number that stands in their place",
    ),
    "_data/_spec.py _text: reduction: all -> any": (
        "test",
        "tests/test_usual_mistakes.py::test_a_usual_mistake_gets_its_sentence",
    ),
    "_data/_spec.py Spec.tensor: bound: inputs.detach() -> inputs": (
        "test",
        "tests/test_data.py::test_inputs_that_want_a_gradient_are_data_like_any",
    ),
    "adaptive/_surrogate.py distil_surrogate.learn: keyword: , verbose=verbose -> nothing": (
        "test",
        "tests/test_adaptive.py::test_a_bar_shows_the_epochs_of_a_student_if_it_is_asked_for",
    ),
    "attacks/_fab_targeted.py FastAdaptiveBoundary._take_step: comparison: >= -> >": (
        "test",
        "tests/test_fab.py::test_the_last_point_of_a_run_that_found_nothing_is_judged_without_a_gradient",
    ),
    "attacks/_sparse_rs.py SparseSearch.start: bound: rank.masked_fill(~free, -1) -> rank": (
        "test",
        "tests/test_l0.py::test_sparse_rs_changes_as_many_places_as_it_may_in_every_query",
    ),
    "attacks/carlini_wagner/_l0.py SparseDescent.descended: bound: (state.threshold + change).clamp(0, 1) -> state.threshold + change": (
        "test",
        "tests/test_carlini_wagner.py::test_what_l0_takes_back_is_a_share_of_the_width_between_none_and_all",
    ),
    "datasets/_image_files.py _exactly: constant: 1 -> 2": (
        "equivalent",
        "of a file that is too long it reads two bytes too many rather than one, and refuses it alike",
    ),
    "estimators/_recipes.py top: constant: 10_000 -> 5000": (
        "test",
        "tests/test_robust.py::test_the_recipe_is_the_published_configuration",
    ),
    "evaluation/_traces.py AttackTrace.first_success: constant: 1 -> 2": (
        "test",
        "tests/test_attack_displays.py::test_what_stands_is_counted_by_hand",
    ),
    "evaluation/_state.py StateFile.compare_data: ending: return -> pass": (
        "test",
        "tests/test_state.py::test_an_evaluation_without_a_state_file_marks_no_data_and_asks_no_more_of_the_model",
    ),
    "evaluation/_layer_by_layer.py _Trial.jointly: reduction: max -> min": (
        "test",
        "tests/test_layer_by_layer.py::test_the_joint_attack_takes_no_fewer_steps_than_the_preset",
    ),
    "evaluation/_attack_displays.py AdversarialExamplesDisplay.plot: call: self.ax_.tick_params(length=0) -> pass": (
        "equivalent",
        "the length of the ticks beside a picture, which nobody is promised",
    ),
    "evaluation/diagnosis/_thresholds.py exceeds: constant: 0 -> 1": (
        "gone",
        "the exact bound of nothing is 0, and is not asked for apart",
    ),
    "evaluation/diagnosis/_diagnose.py convergence: junction: and -> or": (
        "test",
        "tests/test_findings.py::test_the_longer_attack_goes_on_to_all_only_if_some_are_left_and_something_fell",
    ),
    "evaluation/diagnosis/_rescaling.py scales: comparison: > -> >=": (
        "test",
        "tests/test_findings.py::test_means_of_three_channels_are_tried_on_images_and_not_on_a_table_of_three_columns",
    ),
    "evaluation/diagnosis/_active.py apart: arithmetic: - -> +": (
        "test",
        "tests/test_findings.py::test_an_attack_is_tested_on_images_whose_balls_do_not_meet",
    ),
    "exercises/_adversarial_examples.py fgsm_step: bound: inputs.detach() -> inputs": (
        "test",
        "tests/test_exercises.py::test_a_solution_leaves_the_tensors_that_it_is_given_as_they_were",
    ),
    "exercises/_carlini_wagner.py margin: constant: 1 -> 2 (4)": (
        "test",
        "tests/test_exercises.py::test_a_task_is_whole_and_its_solution_passes_from_its_text_alone",
    ),
    'functional/_losses.py rescaled_cross_entropy: call: check_positive("scale", scale) -> pass': (
        "test",
        "tests/test_functional.py::test_rescaling_refuses_a_scale_that_is_none",
    ),
    "networks/_wrappers.py _statistic: comparison: > -> >=": (
        "gone",
        "one value is squeezed and spread out again like any other, and no rank is asked for",
    ),
    "persistence/_manifest.py top: constant: 20 -> 10": (
        "test",
        "tests/test_persistence.py::test_hundreds_of_long_names_of_classes_come_back",
    ),
    "scaling_laws/_fitting.py _descents: arithmetic: // -> *": (
        "test",
        "tests/test_scaling_laws.py::test_descents_start_from_the_best_candidates_and_a_sample_of_the_others",
    ),
    "scaling_laws/_parametric.py _ParametricForm.candidates: sign: -0.3 -> 0.3 (2)": (
        "test",
        "tests/test_scaling_laws.py::test_a_fit_starts_from_either_sign_of_what_quality_does",
    ),
    "testing/strategies.py _built: reduction: zeros -> ones": (
        "equivalent",
        "only the shape is read of what a network answers to this tensor",
    ),
    "testing/_points.py judged_alone: comparison: <= -> < (2)": (
        "test",
        "tests/test_testing_attacks.py::test_a_success_that_is_a_tie_alone_or_in_float64_is_none",
    ),
    "testing/_slopes.py ways: bound: logits.abs() -> logits": (
        "test",
        "tests/test_testing_models.py::test_a_constant_on_all_logits_makes_no_stairs_of_a_sound_network",
    ),
    "_cli/_demo.py top: constant: 1500 -> 3000": (
        "equivalent",
        "how many images the short demo trains on, which nobody is promised",
    ),
    "attacks/_box_projection.py greedy_step: reduction: zeros_like -> ones_like": (
        "equivalent",
        "every value is written over: the order is a permutation of all places",
    ),
    "attacks/_checks.py sounded: branches: state == 1, highest, x -> state == 1, x, highest": (
        "equivalent",
        "three states are drawn evenly, and which number stands for which means nothing",
    ),
    "attacks/carlini_wagner/_l0.py top: constant: 0.999 -> 1.998": (
        "test",
        "tests/test_carlini_wagner.py::test_l0_descends_for_three_fifths_of_the_steps_from_sigma_zeros_threshold",
    ),
    "attacks/carlini_wagner/_published.py ShrinkingConstraint.step: comparison: < -> <=": (
        "equivalent",
        "of two successes at the same distance either may be returned",
    ),
    "evaluation/_entries.py _title: ending: return attack -> pass": (
        "equivalent",
        "a preset's entry is replaced by its attacks, and nobody reads the entry's name",
    ),
    "evaluation/diagnosis/_probes.py top: constant: 100 -> 50": (
        "test",
        "tests/test_probes_by_hand.py::test_a_search_is_made_where_the_callers_has_not_looked",
    ),
    "evaluation/diagnosis/_probes.py blind: sign: -1 -> 1": (
        "test",
        "tests/test_probes_by_hand.py::test_a_flat_cross_entropy_is_tried_within_twice_the_radius_and_not_the_range",
    ),
    "persistence/_folder.py _read_weights: constant: 256 -> 128": (
        "equivalent",
        "still more than a header takes for a tensor; the allowance only bounds what is read",
    ),
    "scaling_laws/_lower_envelope.py lower_envelope: comparison: < -> <= (3)": (
        "test",
        "tests/test_scaling_by_hand.py::test_a_loss_that_stands_still_adds_no_points_to_an_envelope",
    ),
    "testing/_points.py finite_on_plateaus.Flat.forward: arithmetic: + -> -": (
        "test",
        "tests/test_testing_attacks.py::test_a_broken_promise_is_named_and_no_other",
    ),
    "training/_checkpoints.py _loaded: keyword: , weights_only=True -> nothing": (
        "equivalent",
        "what torch.load does by itself in every version that is supported; said for the reader",
    ),
}
"""By the fault's name: ("test", which one), ("equivalent", why) or ("gone", how)."""
